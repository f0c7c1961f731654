//! Verification: who sent this, is it genuine, is it fresh, was it seen before.
//!
//! One message's way through this crate: [`delivery::Delivery`] as `Unverified` →
//! [`verifier::Verifier`] (checks 1 to 8: limits, topic, identity, parse, key, MAC, schema) →
//! `Verified` → [`guard::ReplayGuard`] (checks 9 to 13) → commit through [`log::ReplayLog`]
//! (check 14) → `Fresh`.
//!
//! **Invariant**: no I/O, no clock, no randomness. Time is an argument, so every decision can be
//! replayed, and later stages can obtain a reading only through [`stage::Fresh`]. (The tables of
//! names are seeded at random when a registry is made; what they find does not depend on it.)

pub mod delivery;
pub mod guard;
pub mod log;
pub mod quota;
pub mod registry;
pub mod stage;
pub mod state;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod verifier;
