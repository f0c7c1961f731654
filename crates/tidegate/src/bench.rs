//! Benchmarks: the release binary as a whole, against a named peer in the same run.

pub(crate) mod durable;
mod fleet;
pub(crate) mod footprint;
pub(crate) mod latency;
mod load;
pub(crate) mod rate;
mod rig;
pub(crate) mod scale;
mod statistics;
pub(crate) mod verification;
