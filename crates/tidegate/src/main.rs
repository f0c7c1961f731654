//! The `tidegate` program: parse the command line, load the configuration, run, map errors to an
//! exit code. The way a message takes is joined in [`pipeline`].

mod bench;
mod cli;
mod clock;
mod commands;
mod config;
mod demo;
mod devices;
mod level;
mod pipeline;
mod runtime;
mod setup;
mod subscriber;
mod training;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::parse();
    cli.logs.start();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("{} {error:#}", cli::error_label());
            ExitCode::from(1)
        }
    }
}
