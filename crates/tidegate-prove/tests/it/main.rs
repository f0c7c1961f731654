//! Short runs of the proofs, each of the built program.

mod exhaustion;
mod kill;
mod publisher_kill;
#[expect(clippy::unwrap_used, reason = "helpers of tests")]
mod support;
