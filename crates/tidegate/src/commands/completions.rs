//! `tidegate completions`: completion scripts for shells.

use crate::cli;
use anyhow::Result;
use clap::Args;
use clap_complete::Shell;
use std::process::ExitCode;

/// Print a completion script for your shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completions zsh > ~/.zfunc/_tidegate")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode> {
        clap_complete::generate(
            self.shell,
            &mut cli::definition(),
            "tidegate",
            &mut std::io::stdout(),
        );
        Ok(ExitCode::SUCCESS)
    }
}
