//! The detector as a whole: trained, saved, loaded, and shown faults.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod detection;
mod features;
mod hotel;
mod life;
mod model_file;
mod pipeline;
mod plant;
mod reference;
mod training;
