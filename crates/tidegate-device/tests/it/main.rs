//! The publisher against a small scripted broker, and against the embedded one.
#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod broker;
mod embedded;
mod enrollment;
mod formats;
mod gateway;
mod publisher;
mod reconnect;
mod renewal;
mod rig;
mod stranger;
mod time_echo;
