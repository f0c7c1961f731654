//! The publisher against a small scripted broker over loopback.
#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod broker;
mod publisher;
