//! Short runs of the proofs, each of the built program.

mod exhaustion;
mod fuzz;
mod kill;
mod model;
mod publisher_kill;
#[expect(clippy::unwrap_used, reason = "helpers of tests")]
mod support;
