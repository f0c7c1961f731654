//! Benchmarks: the release binary as a whole, against a named peer in the same run.

mod clients;
pub(crate) mod detect;
pub(crate) mod durable;
mod fleet;
pub(crate) mod flood;
pub(crate) mod footprint;
pub(crate) mod handshake;
pub(crate) mod latency;
mod link;
mod load;
pub(crate) mod rate;
pub(crate) mod revocation;
mod rig;
pub(crate) mod scale;
pub(crate) mod sessions;
mod statistics;
pub(crate) mod verification;
