//! The server over real sockets.

mod compatible;
mod doors;
mod http;
mod stream;
mod support;
