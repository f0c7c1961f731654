//! Tests against a live broker over real sockets.
