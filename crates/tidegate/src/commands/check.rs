//! `tidegate check`: is everything in order?

mod handshake;
mod identity;

use crate::cli::{LevelFlag, Place};
use crate::clock;
use crate::config::Config;
use crate::devices::{self, DevicesFile};
use anyhow::Result;
use clap::Args;
use owo_colors::OwoColorize;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use tidegate_detect::model::Model;
use tidegate_envelope::time::Timestamp;
use tidegate_store::reader::Reader;

/// 2026-01-01: no clock can be right and before this program was written.
const WRITTEN: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Check configuration, certificates, revocation lists, TLS, keys, registry, clock, ports and database
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 when nothing is wrong. Every finding names its fix.
A port in use is only a note: a running Tidegate uses it. TLS is tried for real: with the broker
that runs, or over loopback with the files that it would use.")]
pub(crate) struct Check {
    #[command(flatten)]
    level: LevelFlag,
}

/// What was found, and what to do about it.
#[derive(Debug, Default)]
struct Findings {
    wrong: usize,
}

impl Findings {
    fn right(&self, what: &str, detail: &str) {
        anstream::println!("  {}  {what:<14} {detail}", "ok   ".green());
    }

    fn note(&self, what: &str, detail: &str) {
        anstream::println!("  {}  {what:<14} {detail}", "note ".yellow());
    }

    fn wrong(&mut self, what: &str, detail: &str) {
        self.wrong += 1;
        anstream::println!("  {}  {what:<14} {detail}", "wrong".red().bold());
    }
}

impl Check {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let mut findings = Findings::default();
        let path = place.config_path();
        let mut config = match place.load() {
            Ok(config) => config,
            Err(error) => {
                findings.wrong("configuration", &format!("{error:#}"));
                return Ok(ExitCode::from(1));
            }
        };
        if path.exists() {
            findings.right("configuration", &path.display().to_string());
        } else {
            findings.note(
                "configuration",
                &format!("{} is not there; defaults are used", path.display()),
            );
        }
        config.level = self.level.level.unwrap_or(config.level);
        match config.refuse_open_door() {
            Ok(()) => findings.right("level", config.level.name()),
            Err(error) => findings.wrong("level", &error.to_string()),
        }
        identity::check(&config, &mut findings);
        keys(&config, &mut findings);
        registry(&config, &mut findings);
        clock_and_database(&config, &mut findings);
        model(&config, &mut findings);
        ports(&config, &mut findings);
        if findings.wrong > 0 {
            anstream::println!("\n{} wrong", findings.wrong);
            return Ok(ExitCode::from(1));
        }
        anstream::println!("\nNothing is wrong.");
        Ok(ExitCode::SUCCESS)
    }
}

fn keys(config: &Config, findings: &mut Findings) {
    if let Some(path) = &config.legacy_shared_secret {
        findings.note(
            "keys",
            &format!(
                "devices without a key file share one secret, {}: whoever takes one can speak for all of them",
                path.display()
            ),
        );
    }
    let root = config.files.root_key();
    match devices::read_secret(&root) {
        Ok(bytes) if bytes.len() == 32 => findings.right("root key", &root.display().to_string()),
        Ok(bytes) => findings.wrong(
            "root key",
            &format!("{} has {} bytes instead of 32", root.display(), bytes.len()),
        ),
        Err(error) => findings.wrong("root key", &format!("{error:#}; `tidegate up` makes one")),
    }
}

fn registry(config: &Config, findings: &mut Findings) {
    let loaded = DevicesFile::load(&config.files.registry);
    let checked = loaded.and_then(|file| {
        let registry = file.registry(config)?;
        // A database that cannot be read is a finding of its own.
        Ok((registry, super::keys::unfinished(&file, config).unwrap_or(0)))
    });
    match checked {
        Ok((registry, unfinished)) => {
            if unfinished > 0 {
                findings.note(
                    "keys",
                    &format!(
                        "not yet seen with their newest key: {unfinished} of the devices; `tidegate keys list` names them"
                    ),
                );
            }
            let count = registry.devices().len();
            findings.right(
                "registry",
                &format!("{count} devices in {} zones", registry.zones().len()),
            );
            let missing: Vec<_> = registry
                .devices()
                .iter()
                .filter(|device| !config.files.certs.join(format!("{}.pem", device.id)).exists())
                .map(|device| device.id.to_string())
                .collect();
            if !missing.is_empty() && config.level.has_client_certificates() {
                findings.note(
                    "registry",
                    &format!("no certificate here for {}", missing.join(", ")),
                );
            }
        }
        Err(error) => findings.wrong("registry", &format!("{error:#}")),
    }
}

fn clock_and_database(config: &Config, findings: &mut Findings) {
    let now = clock::now();
    if now < WRITTEN {
        findings.wrong(
            "clock",
            &format!("says {now}, which is past; set it, or every message is refused as future"),
        );
    } else {
        findings.right("clock", &now.to_string());
    }
    let path = config.files.database();
    if !path.exists() {
        return findings.note(
            "database",
            &format!("{} is made by the first run", path.display()),
        );
    }
    match Reader::open(&path).and_then(|mut reader| reader.check()) {
        Ok(()) => findings.right("database", &path.display().to_string()),
        Err(error) => findings.wrong("database", &error.to_string()),
    }
}

fn model(config: &Config, findings: &mut Findings) {
    let path = config.files.model();
    match Model::load(&path) {
        Ok(_) => findings.right("model", &path.display().to_string()),
        Err(_) if !path.exists() => {
            findings.note("model", &format!("{} is made by the first run", path.display()));
        }
        Err(error) => findings.wrong(
            "model",
            &format!("{error}; run `tidegate detect train --from simulator`"),
        ),
    }
}

fn ports(config: &Config, findings: &mut Findings) {
    let listeners: [(&str, Option<SocketAddr>); 3] = [
        ("MQTT port", Some(config.mqtt_listener())),
        ("page port", Some(config.page_listener())),
        ("events port", config.events_listener()),
    ];
    for (what, address) in listeners {
        if let Some(address) = address {
            port(what, address, findings);
        }
    }
}

fn port(what: &str, address: SocketAddr, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.right(what, &format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            findings.note(
                what,
                &format!("{address} is in use, by a running Tidegate or another program"),
            );
        }
        Err(error) => findings.wrong(what, &format!("cannot listen on {address}: {error}")),
    }
}
