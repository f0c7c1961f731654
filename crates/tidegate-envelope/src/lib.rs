//! Messages and their signatures: the lowest stage, which every other crate reads.
//!
//! - [`id`]: names of devices, sequence numbers, key epochs
//! - [`time`]: [`Timestamp`](time::Timestamp), microseconds since 1970 in UTC
//! - [`principal`]: who is at the other end of a connection
//! - [`reason`]: why a message or a connection was refused, by its wire name
//! - [`reading`]: what a sensor measured
//! - [`json`]: strict JSON, and Python's canonical form of it
//! - [`json_v1`]: the signed message format; [`cose_v1`]: the short one; `unsigned`: the older forms
//! - [`key`]: keys and MACs
//! - [`time_echo`]: the time, signed, for devices without a clock
//! - [`sink`]: text into a buffer of fixed size
//!
//! The feature `alloc` is on by default. Without it neither std nor an allocator is needed, and
//! what is left is a device's side: signing, deriving keys, checking a time answer.
//!
//! **Invariant**: no I/O and no clock. Nothing here reads the time, a file or a socket.
#![no_std]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

pub mod cose_v1;
pub mod id;
pub mod json;
pub mod json_v1;
pub mod key;
pub mod principal;
pub mod reading;
pub mod reason;
pub mod sink;
pub mod time;
pub mod time_echo;
#[cfg(feature = "alloc")]
pub mod unsigned;
