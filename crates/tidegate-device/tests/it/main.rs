//! The publisher against a small scripted broker, and against the embedded one.
#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod broker;
mod embedded;
mod formats;
mod publisher;
mod reconnect;
mod rig;
mod time_echo;
