//! What is fuzzed, and what must hold of it, one module a target.
//!
//! Each module has one function `check` that takes whatever bytes come. It panics when something
//! that must hold does not; the fuzzer takes that for a crash and keeps the bytes. The functions
//! are apart from libFuzzer, so that seeds and found inputs can be run without it.

#[cfg(feature = "program")]
pub mod configuration;
pub mod cose_v1;
#[cfg(feature = "program")]
pub mod enroll;
pub mod json_v1;
pub mod verify;
pub mod websocket;
