//! Tests against a live broker over real sockets.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod access;
mod acknowledge;
mod attach;
mod certificates;
mod client;
mod deliver;
mod floods;
mod hostile;
mod identities;
mod interop;
mod openssl;
mod reply;
mod revocation;
mod roles;
mod serve;
mod sessions;
mod stock;
mod stock_revocation;
mod stop;
mod subscriber;
mod table;
mod wills;
