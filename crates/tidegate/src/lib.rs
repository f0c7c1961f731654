//! The program: command line, configuration, wiring.
//!
//! - `cli` and `commands`: one subcommand a file
//! - `config`, `devices`, `level`: what files say, checked before any port opens
//! - `setup`, `training`: what a first run makes
//! - `runtime`: what `up` and `gateway` have in common
//! - `reload`: changed files, taken while it runs
//! - `overview`, `enrollment`: certificates and sessions as people see them, and how devices get theirs
//! - `pipeline`: the way a message takes
//! - `detection`: recordings, models and how well they do, offline
//! - `demo`, `bench`: sensors and attacks that are simulated, and measurements
//!
//! It is a library so that fuzzing can reach the parsers; nothing else may be built on it.
//!
//! **Invariant**: the only place that reads configuration and the clock.

mod bench;
mod cli;
mod clock;
mod commands;
mod config;
mod demo;
mod detection;
mod devices;
mod enrollment;
mod level;
mod overview;
mod pipeline;
mod reload;
mod runtime;
mod setup;
mod training;

use std::path::Path;
use std::process::ExitCode;

/// Parses the command line, loads the configuration, runs, and maps errors to an exit code.
#[must_use]
pub fn main() -> ExitCode {
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

/// Reads and checks the text of a `tidegate.toml` as every command does. No file is touched.
///
/// # Errors
/// What is wrong with it, in the words that a command would print.
pub fn check_configuration(text: &str) -> Result<(), String> {
    let config = config::Config::parse(text, Path::new("."));
    config.map(drop).map_err(|error| format!("{error:#}"))
}

/// Reads and checks the text of a `devices.toml` as every command does, under a configuration of
/// defaults; keys are derived from a root key of zeros. No file is touched.
///
/// # Errors
/// What is wrong with it, in the words that a command would print.
pub fn check_registry(text: &str) -> Result<(), String> {
    let checked = config::Config::parse("", Path::new("."))
        .and_then(|config| devices::DevicesFile::parse(text)?.registry_without_secrets(&config));
    checked.map(drop).map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_commands_take_pass_and_others_are_refused_in_words() {
        assert_eq!(check_configuration(config::TEMPLATE), Ok(()));
        let error = check_configuration("[verify]\nwindow = 3").unwrap_err();
        assert!(error.contains("unknown field `window`"), "{error}");

        let registry = "[[zone]]\nid = \"z\"\nname = \"Z\"\n[[device]]\nid = \"d\"\ntopic = \"d\"\n\
                        message_id = \"d\"\nzone = \"z\"\nkey_file = \"/dev/zero\"\n";
        assert_eq!(check_registry(registry), Ok(()));
        let error = check_registry(&registry.replace("zone = \"z\"", "zone = \"y\"")).unwrap_err();
        assert!(error.contains("zone `y`, which is not defined"), "{error}");
    }
}
