//! `tidegate certs refresh-crl`: new revocation lists for gateways that cannot sign their own.

use super::{open_ca, say_written};
use crate::clock;
use crate::config::Config;
use anyhow::Result;
use clap::Args;
use tidegate_pki::revocation::CRL_LIFE;

/// Sign the revocation lists anew
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tidegate certs refresh-crl && scp certs/crl.pem gateway.example:/srv/tidegate/certs/

A gateway with the CA's key does this by itself, once a day. One without needs a new list before
the old one ends, 7 days after it was signed: from then on it lets nobody in.")]
pub(super) struct RefreshCrl {
    /// Only when a list is older than a day or incomplete
    #[arg(long)]
    if_due: bool,
}

impl RefreshCrl {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let ca = open_ca(config)?;
        let now = clock::now();
        let written = if self.if_due {
            ca.refresh(now)?
        } else {
            Some(ca.write_lists(&mut ca.ledger.lock()?, now)?)
        };
        let Some(written) = written else {
            anstream::println!("The lists are young and complete; nothing was changed.");
            return Ok(());
        };
        say_written(config, &written);
        anstream::println!(
            "copy the file to gateways without the CA's key, within {} days; they take it within a second",
            CRL_LIFE.as_secs() / 86_400
        );
        Ok(())
    }
}
