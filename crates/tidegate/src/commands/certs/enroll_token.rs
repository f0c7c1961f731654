//! `tidegate certs enroll-token`: lets one device fetch its certificate, once.

use super::minute;
use crate::clock;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::setup::{self, CaPaths};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::time::Duration;
use tidegate_device::enrollment::{Fingerprint, Server};
use tidegate_enroll::tokens::{DEFAULT_LIFE, Tokens};
use tidegate_envelope::id::DeviceId;
use tidegate_pki::inspect;

/// Make a token with which a device fetches its certificate, once
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs enroll-token device-013
  tidegate certs enroll-token device-013 --life 1h --server gateway.example

The token is shown once and kept nowhere. Whoever has it can become this device, until it is used
or over: hand it on as you would a password.")]
pub(super) struct EnrollToken {
    /// The device, as the registry names it
    device: String,
    /// How long the token is good [default: 15m; 1d at most]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    life: Option<Duration>,
    /// Name or address under which the device reaches this gateway [default: the first of
    /// listen.server_names]
    #[arg(long, value_name = "HOST")]
    server: Option<String>,
}

impl EnrollToken {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        if config.enroll.enabled == Some(false) {
            bail!("enroll.enabled = false in tidegate.toml: no device could use the token");
        }
        let file = DevicesFile::load(&config.files.registry)?;
        file.find(&self.device)?;
        let id = DeviceId::new(&self.device)?;
        let tokens = Tokens::open(&CaPaths::of(config).tokens).context("cannot use the enrolment tokens")?;
        let life = self.life.unwrap_or(DEFAULT_LIFE);
        let token = tokens
            .create(&id, life, clock::now())
            .context("cannot make a token")?;
        let first = config.listen.server_names.first();
        let host = self
            .server
            .as_deref()
            .or(first.map(String::as_str))
            .unwrap_or("localhost");
        let server = Server {
            host: host.to_owned(),
            port: config.enroll.port,
        };
        let fingerprint = fingerprint(config)?;
        anstream::println!(
            "Token for {id}, good once and until {}:\n",
            minute(token.expires())
        );
        anstream::println!("  {token}\n");
        anstream::println!("On the device, run:\n");
        anstream::println!(
            "  tidegate certs enroll {id} --server {server} --ca-sha256 {fingerprint} --token {token}"
        );
        Ok(())
    }
}

/// By what the device knows this gateway: the CA that signed the server's certificate, which during a
/// change of the CA is not always the first of the bundle.
fn fingerprint(config: &Config) -> Result<Fingerprint> {
    let bundle = inspect::bundle(&CaPaths::of(config).bundle)?;
    let path = config.files.certs.join(format!("{}.pem", setup::SERVER));
    let server = inspect::certificate(&path)?;
    let signer = inspect::issuer_of(&server.der, &bundle)
        .with_context(|| format!("no CA of ours signed {}", path.display()))?;
    Ok(Fingerprint::of(&signer.der))
}
