//! `tidegate certs issue`: a certificate and its key, made here.

use super::{day, days, open_ca};
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::setup;
use crate::setup::ca::server_profile;
use anyhow::Result;
use clap::{Args, ValueEnum};
use owo_colors::OwoColorize;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_pki::inspect;
use tidegate_pki::ledger::How;
use tidegate_pki::profile::Profile;

/// Issue one certificate and its key into certs/
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs issue device-013
  tidegate certs issue server --force          renew the server's certificate
  tidegate certs issue alice --role operator --days 30

The key is made here and has to be carried to its device; with `enroll-token` the device makes
its own, which never leaves it.")]
pub(super) struct Issue {
    /// Device id, or `server`, `gateway`, `operator`, or another name with --role
    name: String,
    /// What the certificate entitles to [default: by the name, else device]
    #[arg(long, value_enum)]
    role: Option<RoleName>,
    /// How long it is valid [default: 90]
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

impl Issue {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let ca = open_ca(config)?;
        let mut profile = self.profile(config)?;
        if let Some(count) = self.days {
            profile = profile.lasting(days(count));
        }
        let path = ca.issue(&self.name, &profile, How::Issued, self.force)?;
        let info = inspect::certificate(&path)?;
        anstream::println!("issued {} until {}", path.display(), day(info.not_after));
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
        Ok(())
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
            RoleName::Server => server_profile(config)?,
        })
    }
}
