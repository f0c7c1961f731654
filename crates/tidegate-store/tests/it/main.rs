//! The database on real files: what is kept, what is refused, and what a crash leaves.
#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first failure")]

mod crash;
mod damage;
mod events;
mod queries;
mod refusals;
mod restart;
mod retention;
mod space;
mod support;
