//! The command line: one subcommand per file in [`commands`].

use crate::commands;
use crate::level::Level;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use owo_colors::OwoColorize;
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The MQTT client logs every refused publish; the publisher reports them itself.
const DEFAULT_FILTER: &str = "warn,rumqttc=error";

/// What every subcommand takes stands apart from what is its own.
const GLOBAL: &str = "Options of every command";

const EXAMPLES: &str = "\
Examples:
  tidegate up --demo                 everything on this machine, with simulated sensors and attacks
  tidegate up --demo --level plain   the same without protection: watch the attacks get in
  tidegate check                     is everything in order?
  tidegate events --last 20          what was stopped, and why";

/// Lets genuine sensor readings through, stops everything else, and shows which layer stopped it.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, styles = STYLES, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) logs: Logs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which installation is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct Place {
    /// Folder with tidegate.toml, certificates and data
    #[arg(
        long,
        short = 'C',
        global = true,
        env = "TIDEGATE_DIR",
        default_value = ".",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// Configuration file [default: tidegate.toml in --dir]
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// How the program logs. Logs go to standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct Logs {
    /// Form of the log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "TIDEGATE_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, as in `info` or `tidegate_broker=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "TIDEGATE_LOG", default_value = DEFAULT_FILTER)]
    log: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(commands::up::Up),
    Broker(commands::broker::Broker),
    Gateway(commands::gateway::Gateway),
    Sensor(commands::sensor::Sensor),
    Certs(commands::certs::Certs),
    Devices(commands::devices::Devices),
    Keys(commands::keys::Keys),
    Configs(commands::configs::Configs),
    Check(commands::check::Check),
    Verify(commands::verify::Verify),
    Readings(commands::readings::Readings),
    Events(commands::events::Events),
    Detect(commands::detect::Detect),
    Bench(commands::bench::Bench),
    Completions(commands::completions::Completions),
}

/// The level for one run.
#[derive(Debug, Args)]
pub(crate) struct LevelFlag {
    /// How much protection is on [default: the configuration's, else ai]
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
}

/// Reads the command line, or prints help or an error and exits.
pub(crate) fn parse() -> Cli {
    Cli::parse()
}

/// The command line's own description, for completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// The word before an error.
pub(crate) fn error_label() -> String {
    "error:".red().bold().to_string()
}

impl Logs {
    /// Starts logging to standard error.
    pub(crate) fn start(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        definition().debug_assert();
    }
}
