//! `tidegate-prove`: each claim of the replay guard, put to the proof by a command of its own.
//!
//! Every proof takes `--runs` and `--seed`, shows its progress, counts what it tried, and ends
//! with a [`report::Report`] in `target/prove`. The exit code is 1 when the claim did not hold.

mod exhaustion;
mod kill;
mod model;
mod power_cut;
mod progress;
mod publisher_kill;
mod report;
mod simulate;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Prove that nothing is accepted twice and nothing accepted is lost
#[derive(Debug, Parser)]
#[command(name = "tidegate-prove", version)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

/// What is to be proved.
#[derive(Debug, Subcommand)]
enum Proof {
    Kill(kill::Kill),
    PowerCut(power_cut::PowerCut),
    PublisherKill(publisher_kill::PublisherKill),
    Exhaustion(exhaustion::Exhaustion),
    Model(model::Model),
    Simulate(simulate::Simulate),
    Fuzz(tools::Fuzz),
    Mutants(tools::Mutants),
    Report(report::Write),
}

fn main() -> ExitCode {
    let ran = match Cli::parse().proof {
        Proof::Kill(proof) => proof.run(),
        Proof::PowerCut(proof) => proof.run(),
        Proof::PublisherKill(proof) => proof.run(),
        Proof::Exhaustion(proof) => proof.run(),
        Proof::Model(proof) => proof.run(),
        Proof::Simulate(proof) => proof.run(),
        Proof::Fuzz(proof) => proof.run(),
        Proof::Mutants(proof) => proof.run(),
        Proof::Report(write) => write.run(),
    };
    match ran {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
