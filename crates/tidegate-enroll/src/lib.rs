//! The enrolment service: devices fetch and renew their certificates over EST (RFC 7030).
//!
//! - [`tokens`]: single-use tokens, each for one device
//! - [`service`]: the HTTPS listener and what it is given
//! - [`event`]: what the service tells whoever runs it
//! - [`limits`]: how many may ask, and how often
//!
//! **Invariant**: a token gives one certificate at most, to the device that it was made for; what
//! a certificate says comes from the registry, never from the request.

mod desk;
mod door;
pub mod event;
mod limiter;
pub mod limits;
mod routes;
pub mod service;
pub mod tokens;
