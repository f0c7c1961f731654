//! Short runs of the proofs, each of the built program.

mod exhaustion;
mod fuzz;
mod kill;
mod model;
mod power_cut;
mod publisher_kill;
mod simulate;
#[expect(clippy::unwrap_used, reason = "helpers of tests")]
mod support;
