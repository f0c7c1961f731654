//! The publisher: signs, timestamps and counts; and the simulated sensors.
//!
//! - [`publisher`]: signs readings and publishes them, through lost connections and refusals
//! - [`sequence`]: the sequence numbers of a device, never used twice, through crashes
//! - [`enrollment`]: the device's certificate, fetched and exchanged, and its files
//! - [`renewal`]: exchanges the certificate in time, while the publisher runs
//! - [`clock`]: the time for a device without a clock, asked for and signed
//! - [`simulator`]: water sensors of a building, and their faults
//!
//! **Invariant**: a sequence number leaves this crate only after a number at or above it is on the
//! disk. Nothing here reads the wall clock: times are arguments, or come signed from the gateway.

mod chain;
pub mod clock;
pub mod enrollment;
pub mod publisher;
pub mod renewal;
pub mod sequence;
pub mod simulator;
