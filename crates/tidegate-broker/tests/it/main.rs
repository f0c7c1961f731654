//! Tests against a live broker over real sockets.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod access;
mod acknowledge;
mod attach;
mod client;
mod deliver;
mod hostile;
mod identities;
mod interop;
mod reply;
mod serve;
mod sessions;
mod stop;
mod subscriber;
mod wills;
