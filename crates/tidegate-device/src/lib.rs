//! The publisher: signs, timestamps and counts; and the simulated sensors.
//!
//! - [`publisher`]: signs readings and publishes them, through lost connections and refusals
//! - [`sequence`]: the sequence numbers of a device, never used twice, through crashes
//! - [`simulator`]: water sensors of a building, and their faults
//!
//! **Invariant**: a sequence number leaves this crate only after a number at or above it is on the
//! disk. Times are arguments: nothing here reads the wall clock.

pub mod publisher;
pub mod sequence;
pub mod simulator;
