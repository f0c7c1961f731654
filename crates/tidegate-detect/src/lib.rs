//! Detection: does a genuine reading fit what this device normally measures?
//!
//! One reading's way through this crate: [`rules`] (one broken limit is an anomaly at once) →
//! [`features`] (streaming, one small state per device) → [`forest`] (isolation forest over the
//! features) → threshold from [`calibrate`] → [`debounce`] (3 of 5) → [`explain`] (a sentence).
//! [`detector`] runs them; [`train`] makes the [`model`] that it reads, one for each of [`classes`].
//! [`shadow`] compares two models, [`population`] says when to train again, [`scorer`] and [`table`]
//! give bare scores for others to judge. `docs/detection.md` has the method, figures and limits.
//!
//! **Invariant**: no I/O but the model file, no clock, and no thread or randomness outside training,
//! which is fixed by its seed. The pipeline enters through
//! [`Detector::assess_fresh`](detector::Detector::assess_fresh), so nothing unverified, replayed or
//! undurable ever moves a device's state.

pub mod calibrate;
pub mod channel;
pub mod classes;
mod data;
pub mod debounce;
pub mod detector;
pub mod explain;
pub mod features;
pub mod forest;
pub mod model;
pub mod population;
pub mod rules;
pub mod scorer;
mod series;
pub mod shadow;
pub mod table;
pub mod train;
pub mod unit;
