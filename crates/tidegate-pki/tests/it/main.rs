//! Certificates against OpenSSL, and configurations in real handshakes over loopback.
#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod files;
mod handshake;
mod ledger;
mod openssl;
mod parts;
mod requests;
mod revocation;
mod rotation;
mod support;
