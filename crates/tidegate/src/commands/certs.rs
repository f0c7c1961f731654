//! `tidegate certs`: the CA and its certificates.

use crate::cli::Place;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::{clock, setup};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use owo_colors::OwoColorize;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_pki::inspect::{self, CertificateInfo};
use tidegate_pki::profile::Profile;

use super::{Format, table};

/// A certificate that ends sooner than this is pointed out.
const SOON_DAYS: i64 = 30;

/// Make, issue and list certificates
#[derive(Debug, Args)]
pub(crate) struct Certs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the CA, and certificates for server, gateway, operator and every registered device
    Init,
    /// Issue one certificate and its key into certs/
    #[command(after_help = "Examples:
  tidegate certs issue device-013
  tidegate certs issue server --force          renew the server's certificate
  tidegate certs issue alice --role operator --days 30")]
    Issue(Issue),
    /// List certificates with their expiry
    List {
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Debug, Args)]
struct Issue {
    /// Device id, or `server`, `gateway`, `operator`, or another name with --role
    name: String,
    /// What the certificate entitles to [default: by the name, else device]
    #[arg(long, value_enum)]
    role: Option<RoleName>,
    /// How long it is valid
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    days: Option<u64>,
    /// Replace certificate and key if they exist
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Device,
    Gateway,
    Operator,
    Server,
}

impl Certs {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        match self.action {
            Action::Init => {
                let (config, made) = setup::prepare_with_all_certificates(place)?;
                if made.is_empty() {
                    anstream::println!("Everything is there already; nothing was changed.");
                }
                for line in made {
                    anstream::println!("made {line}");
                }
                list(&config, Format::Table)
            }
            Action::Issue(issue) => issue.run(&place.load()?),
            Action::List { format } => list(&place.load()?, format),
        }
    }
}

impl Issue {
    fn run(self, config: &Config) -> Result<ExitCode> {
        let certs = &config.files.certs;
        if !certs.join("ca.pem").exists() {
            bail!(
                "there is no CA in {}; run `tidegate certs init` first",
                certs.display()
            );
        }
        let mut profile = self.profile(config)?;
        if let Some(days) = self.days {
            profile = profile.lasting(Duration::from_secs(days * 86_400));
        }
        let authority = setup::authority(config, &mut Vec::new())?;
        let path = setup::issue(&authority, certs, &self.name, &profile, self.force)?;
        let info = inspect::certificate(&path)?;
        anstream::println!("issued {} until {}", path.display(), day(&info));
        let registry = DevicesFile::load(&config.files.registry);
        let unknown = registry.is_ok_and(|file| file.devices.iter().all(|device| device.id != self.name));
        if info.role == Some(Role::Device) && unknown {
            anstream::println!(
                "{} {} is not in the registry yet: `tidegate devices add {} --zone ZONE`",
                "note:".yellow().bold(),
                self.name,
                self.name
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn profile(&self, config: &Config) -> Result<Profile> {
        let by_name = match self.name.as_str() {
            setup::SERVER => RoleName::Server,
            setup::GATEWAY => RoleName::Gateway,
            setup::OPERATOR => RoleName::Operator,
            _ => RoleName::Device,
        };
        let id = DeviceId::new(&self.name)?;
        Ok(match self.role.unwrap_or(by_name) {
            RoleName::Device => Profile::device(id),
            RoleName::Gateway => Profile::gateway(id),
            RoleName::Operator => Profile::operator(id),
            RoleName::Server => {
                Profile::server(&config.listen.server_names).context("listen.server_names")?
            }
        })
    }
}

#[derive(Serialize)]
struct Row {
    file: String,
    name: String,
    role: String,
    expires: String,
    days_left: i64,
    state: &'static str,
    serial: String,
}

fn list(config: &Config, format: Format) -> Result<ExitCode> {
    let now = clock::now();
    let mut rows = Vec::new();
    for found in inspect::list(&config.files.certs)? {
        match found {
            Ok(info) => rows.push(row(&info, now)),
            Err(error) => anstream::eprintln!("{} {error}", "skipped:".yellow().bold()),
        }
    }
    match format {
        Format::Json => {
            for row in &rows {
                anstream::println!("{}", serde_json::to_string(row)?);
            }
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
            rows.iter().try_for_each(|row| writer.serialize(row))?;
            writer.flush()?;
        }
        Format::Table => {
            let mut table = table::new(&["file", "name", "role", "expires", "days left", "state"]);
            for row in rows {
                let days = row.days_left.to_string();
                table.add_row([
                    row.file,
                    row.name,
                    row.role,
                    row.expires,
                    days,
                    row.state.to_owned(),
                ]);
            }
            anstream::println!("{table}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(info: &CertificateInfo, now: tidegate_envelope::time::Timestamp) -> Row {
    let days_left = info.days_left(now);
    let state = match days_left {
        _ if !info.is_valid(now) => "expired",
        ..SOON_DAYS => "expires soon",
        _ => "valid",
    };
    let role = info
        .role
        .map_or_else(|| format!("{:?}", info.usage), |role| format!("{role:?}"));
    Row {
        file: info
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        name: info
            .identity
            .as_ref()
            .map_or_else(|| info.subject.clone(), ToString::to_string),
        role: role.to_lowercase(),
        expires: day(info),
        days_left,
        state,
        serial: info.serial.clone(),
    }
}

fn day(info: &CertificateInfo) -> String {
    info.not_after.to_string().chars().take(10).collect()
}
