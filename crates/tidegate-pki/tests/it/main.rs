//! Certificates against OpenSSL, and configurations in real handshakes over loopback.
#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod files;
mod handshake;
mod openssl;
mod revocation;
mod support;
