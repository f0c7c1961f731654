//! Tests against a running service over real sockets, with `curl`, `openssl` and strongSwan's `pki`
//! as its clients.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod client;
mod connect;
mod enroll;
mod hostile;
mod renew;
mod rotate;
mod server;
mod strongswan;
mod testdata;
