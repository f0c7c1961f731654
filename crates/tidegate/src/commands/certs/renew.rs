//! `tidegate certs renew`: one more certificate like the one that is there.

use super::{certificate_file, day, days, enroll, open_ca, profile_like};
use crate::config::Config;
use crate::{clock, runtime};
use anyhow::{Context, Result};
use clap::Args;
use tidegate_device::enrollment::{self, IdentityFiles, Server};
use tidegate_envelope::id::DeviceId;
use tidegate_pki::inspect;
use tidegate_pki::ledger::How;

/// Replace a certificate in certs/ by a new one of the same holder, here or over the network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs renew device-003
  tidegate certs renew server --days 365
  tidegate certs renew device-013 --server gateway.example:8443      on the device

Certificate and key are replaced. The old certificate stays good until it expires; if its key may
be known to others, revoke it by its serial number. With --server the CA may be elsewhere: the
present certificate proves who asks, and the gateway decides how long the new one lives.")]
pub(super) struct Renew {
    /// Whose: the name of its file in certs/
    name: String,
    /// How long the new one is valid [default: as long as the old one was]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    days: Option<u64>,
    /// The gateway's enrolment service, where the CA is not on this machine
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "days")]
    server: Option<Server>,
}

impl Renew {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let path = certificate_file(config, &self.name)?;
        if let Some(server) = self.server {
            let files = IdentityFiles::new(&config.files.certs, &DeviceId::new(&self.name)?)?;
            let fetched =
                runtime::tokio_runtime()?.block_on(enrollment::renew(&server, &files, clock::now()));
            let renewed =
                fetched.with_context(|| format!("{} got no certificate from {server}", self.name))?;
            enroll::say(&renewed, "renewed");
            return Ok(());
        }
        let old = inspect::certificate(&path)?;
        let ca = open_ca(config)?;
        let mut profile = profile_like(&old, config)?;
        if let Some(count) = self.days {
            profile = profile.lasting(days(count));
        }
        ca.issue(&self.name, &profile, How::Renewed, true)?;
        let new = inspect::certificate(&path)?;
        anstream::println!(
            "renewed {}: valid until {} instead of {}",
            path.display(),
            day(new.not_after),
            day(old.not_after)
        );
        Ok(())
    }
}
