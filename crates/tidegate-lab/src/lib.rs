//! Attacks carried out over the network, as an attacker would.
//!
//! - [`target`]: where the system under attack listens, and what a thief took from its disk
//! - [`client`]: an MQTT client without scruples
//! - [`attack`]: the attacks by name, one file each below it
//!
//! **Invariant**: the lab never links what it attacks. It knows the broker by its address and its
//! certificates by their files; stolen material is read from disk, as a thief would.

pub mod attack;
pub mod client;
pub mod target;
