//! The server over real sockets.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod compatible;
mod doors;
mod http;
mod identity;
mod stream;
mod support;
