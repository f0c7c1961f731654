//! Proofs that run other tools: the fuzzer and the mutation tester.

mod fuzz;
mod mutants;

pub(crate) use fuzz::Fuzz;
pub(crate) use mutants::Mutants;
