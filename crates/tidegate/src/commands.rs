//! The subcommands, one file each.

pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod certs;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod configs;
pub(crate) mod detect;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod keys;
pub(crate) mod readings;
pub(crate) mod sensor;
mod table;
pub(crate) mod up;
pub(crate) mod verify;

use crate::cli::{Cli, Command, Place};
use crate::config::{self, Config};
use anyhow::Result;
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::ExitCode;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated values with a header
    Csv,
}

/// Runs the chosen subcommand.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let place = &cli.place;
    match cli.command {
        Command::Up(up) => up.run(place),
        Command::Broker(broker) => broker.run(place),
        Command::Gateway(gateway) => gateway.run(place),
        Command::Sensor(sensor) => sensor.run(place),
        Command::Certs(certs) => certs.run(place),
        Command::Devices(devices) => devices.run(place),
        Command::Keys(keys) => keys.run(place),
        Command::Configs(configs) => configs.run(place),
        Command::Check(check) => check.run(place),
        Command::Verify(verify) => verify.run(),
        Command::Readings(readings) => readings.run(place),
        Command::Events(events) => events.run(place),
        Command::Detect(detect) => detect.run(place),
        Command::Bench(bench) => bench.run(),
        Command::Completions(completions) => completions.run(),
    }
}

impl Place {
    /// The configuration file's path.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.config
            .clone()
            .unwrap_or_else(|| self.dir.join(config::FILE_NAME))
    }

    /// The configuration, or the defaults where no file is.
    pub(crate) fn load(&self) -> Result<Config> {
        Config::load(&self.config_path())
    }
}
