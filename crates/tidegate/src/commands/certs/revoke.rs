//! `tidegate certs revoke`: shuts a holder out, by name or serial number.

use super::{day, minute, open_ca, say_written};
use crate::clock;
use crate::config::Config;
use crate::setup;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use owo_colors::OwoColorize;
use tidegate_envelope::id::DeviceId;
use tidegate_pki::authority::RevocationReason;
use tidegate_pki::ledger::{CertificateRole, Entry, State};

/// Shut certificates out: within a second, for new and for open connections
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs revoke device-007 --reason key-compromise
  tidegate certs revoke --serial 51DA2E1C33B80FAA1DBD0B6E8DD1F3D7

By name, all of its certificates that have not expired are revoked. A revoked certificate stays
revoked; to let the device back in, give it a new one (`issue --force` or `enroll-token`).")]
pub(super) struct Revoke {
    /// Whose certificates
    #[arg(required_unless_present = "serial", conflicts_with = "serial")]
    name: Option<String>,
    /// One certificate, by its serial number in hex as `list` and openssl show it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// Why; it stands in the list
    #[arg(long, value_enum)]
    reason: Option<Reason>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reason {
    /// The device is lost or stolen, or its key is known to others
    KeyCompromise,
    /// Its name or role is another now
    AffiliationChanged,
    /// A newer certificate has taken its place
    Superseded,
    /// It is no longer in use
    CessationOfOperation,
    /// It may no longer do what the certificate says
    PrivilegeWithdrawn,
}

impl Revoke {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let ca = open_ca(config)?;
        let now = clock::now();
        let mut ledger = ca.ledger.lock()?;
        let entries = ledger.certificates()?;
        let reason = self.reason.map(Reason::meant);
        let chosen = match (&self.name, &self.serial) {
            (Some(name), _) => by_name(&entries, name)?,
            (None, Some(serial)) => by_serial(&entries, serial),
            (None, None) => bail!("say whose certificate, or give --serial"),
        };
        let mut revoked = 0;
        let mut standing = 0;
        for entry in &chosen {
            match entry.state(now) {
                State::Valid | State::Superseded => {
                    ledger.revoke(&entry.record.serial, now, reason)?;
                    revoked += 1;
                    say_revoked(entry);
                }
                State::Revoked { since } => {
                    standing += 1;
                    anstream::println!(
                        "{} is revoked since {} already: {}",
                        entry.record.id,
                        minute(since),
                        entry.record.serial
                    );
                }
                State::Expired => {}
            }
        }
        if let Some(serial) = self.serial.as_ref().filter(|_| chosen.is_empty()) {
            if ledger.revoke(serial, now, reason)? {
                anstream::println!(
                    "{} the ledger has no certificate {serial}; it is revoked all the same, for every CA",
                    "note:".yellow().bold()
                );
                revoked += 1;
            } else {
                standing += 1;
            }
        }
        if revoked + standing == 0 {
            let whose = self.name.or(self.serial).unwrap_or_default();
            bail!("{whose} has no certificate that has not expired; `tidegate certs list --all` shows all");
        }
        // Also when nothing is new: an earlier command may have been interrupted before this.
        let written = ca
            .write_lists(&mut ledger, now)
            .context("recorded as revoked, but no list says so yet: repair this and run the command again")?;
        say_written(config, &written);
        anstream::println!(
            "a running gateway takes it within a second and closes open sessions of revoked certificates; Mosquitto \
             takes it on SIGHUP, and keeps open sessions until they end"
        );
        say_what_else(&chosen, reason);
        Ok(())
    }
}

impl Reason {
    const fn meant(self) -> RevocationReason {
        match self {
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

fn by_name<'a>(entries: &'a [Entry], name: &str) -> Result<Vec<&'a Entry>> {
    let id = DeviceId::new(name)?;
    let chosen: Vec<_> = entries.iter().filter(|entry| entry.record.id == id).collect();
    if chosen.is_empty() {
        bail!(
            "the ledger has no certificate of {name}; `tidegate certs list` shows all, and --serial revokes one that \
             was made elsewhere"
        );
    }
    Ok(chosen)
}

fn by_serial<'a>(entries: &'a [Entry], serial: &str) -> Vec<&'a Entry> {
    let digits: String = serial
        .chars()
        .filter(|digit| *digit != ':')
        .collect::<String>()
        .to_ascii_lowercase();
    let digits = digits.trim_start_matches('0');
    entries
        .iter()
        .filter(|entry| entry.record.serial.trim_start_matches('0') == digits)
        .collect()
}

fn say_revoked(entry: &Entry) {
    let record = &entry.record;
    anstream::println!(
        "revoked {} ({}, serial {}, valid until {})",
        record.id,
        record.role,
        record.serial,
        day(record.not_after)
    );
}

/// A certificate is not all that a holder has.
fn say_what_else(chosen: &[&Entry], reason: Option<RevocationReason>) {
    let Some(record) = chosen.first().map(|entry| &entry.record) else {
        return;
    };
    let note = "note:".yellow().bold().to_string();
    match record.role {
        CertificateRole::Device if reason == Some(RevocationReason::KeyCompromise) => anstream::println!(
            "{note} {}'s signing key may be known too: `tidegate keys retire {} --stolen` replaces it",
            record.id,
            record.id
        ),
        CertificateRole::Server => anstream::println!(
            "{note} devices do not ask for lists, so a stolen server key works until it expires; make a new \
             certificate (`tidegate certs issue {} --force`), and change the CA (`tidegate certs rotate-ca`)",
            setup::SERVER
        ),
        CertificateRole::Gateway => anstream::println!(
            "{note} a gateway that reads from another broker needs a new certificate: `tidegate certs issue {} --force`",
            record.id
        ),
        _ => {}
    }
}
