//! `tidegate certs enroll`: run on the device, it makes a key and fetches the certificate for it.

use super::day;
use crate::clock;
use crate::config::Config;
use crate::runtime;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use tidegate_device::enrollment::{
    self, Enrolled, Enrollment, Fingerprint, MAX_TOKEN_BYTES, Server, Token, Trust,
};
use tidegate_envelope::id::DeviceId;
use zeroize::Zeroizing;

/// On a device: make a key, and fetch the certificate for it with a token
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs enroll device-013 --server gateway.example:8443 --ca-sha256 4c1d… --token 9f3b…
  tidegate certs enroll device-013 --server gateway.example:8443 --ca ca.pem --token-file -

`tidegate certs enroll-token` on the gateway prints the whole line. The key is made here and never
leaves the device. Certificate, key and CA are written to certs/.")]
pub(super) struct Enroll {
    /// The device that the token was made for
    #[arg(value_parser = DeviceId::new)]
    device: DeviceId,
    /// The gateway's enrolment service
    #[arg(long, value_name = "HOST:PORT")]
    server: Server,
    /// SHA-256 fingerprint of the CA's certificate, by which the gateway is known
    #[arg(
        long,
        value_name = "HEX",
        required_unless_present = "ca",
        conflicts_with = "ca"
    )]
    ca_sha256: Option<Fingerprint>,
    /// The CA's certificate instead, where it was copied here
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The token; without it, it is asked for
    #[arg(long, conflicts_with = "token_file")]
    token: Option<Token>,
    /// File with the token, `-` for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Replace a certificate and key of the device that are there already
    #[arg(long)]
    force: bool,
}

impl Enroll {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let trust = match (self.ca, self.ca_sha256) {
            (Some(file), _) => Trust::Ca(file),
            (None, Some(fingerprint)) => Trust::Fingerprint(fingerprint),
            (None, None) => bail!("say by what the gateway is known: --ca-sha256 or --ca"),
        };
        let token = match (self.token, &self.token_file) {
            (Some(token), _) => token,
            (None, Some(file)) => read_token(file)?,
            (None, None) => ask_token()?,
        };
        let enrollment = Enrollment {
            server: self.server,
            trust,
            device: self.device,
            token,
            folder: config.files.certs.clone(),
            replace: self.force,
        };
        let fetched = runtime::tokio_runtime()?.block_on(enrollment::enroll(&enrollment, clock::now()));
        let enrolled = fetched.with_context(|| {
            format!(
                "{} got no certificate from {}",
                enrollment.device, enrollment.server
            )
        })?;
        say(&enrolled, "enrolled");
        anstream::println!(
            "A publisher of this program renews it at two thirds of its life, or `tidegate certs renew {} --server {}`.",
            enrollment.device,
            enrollment.server
        );
        Ok(())
    }
}

/// Says what is on the disk now.
pub(super) fn say(enrolled: &Enrolled, verb: &str) {
    let files = &enrolled.files;
    anstream::println!(
        "{verb} {} until {}",
        files.device(),
        day(enrolled.certificate.not_after)
    );
    anstream::println!("  certificate  {}", files.certificate().display());
    anstream::println!("  key          {}", files.key().display());
    let changed = if enrolled.authorities_changed { ", new" } else { "" };
    anstream::println!("  CA           {}{changed}", files.ca().display());
}

fn read_token(file: &std::path::Path) -> Result<Token> {
    let shown = file.display();
    // One byte more, so that a longer file is refused and not cut.
    let most = MAX_TOKEN_BYTES as u64 + 1;
    let mut text = Zeroizing::new(String::new());
    if file.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    }
    .with_context(|| format!("cannot read the token from {shown}"))?;
    Token::new(&text).with_context(|| format!("no token in {shown}"))
}

fn ask_token() -> Result<Token> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask for the token; give --token-file FILE");
    }
    Ok(Token::new(&Zeroizing::new(rpassword::prompt_password(
        "Token: ",
    )?))?)
}
