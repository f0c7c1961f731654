//! `tidegate certs`: the CA, its certificates, and their revocation.

mod enroll;
mod enroll_token;
mod export;
mod issue;
mod list;
mod refresh_crl;
mod renew;
mod revoke;
mod rotate_ca;

use crate::cli::Place;
use crate::config::Config;
use crate::setup::ca::{CaPaths, server_profile};
use crate::setup::{self, Ca};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::{CertificateInfo, Usage};
use tidegate_pki::profile::{BACKDATE, Profile};
use tidegate_pki::revocation::Written;

use enroll::Enroll;
use enroll_token::EnrollToken;
use export::Export;
use issue::Issue;
use list::List;
use refresh_crl::RefreshCrl;
use renew::Renew;
use revoke::Revoke;
use rotate_ca::RotateCa;

/// Make, enrol, renew, revoke and list certificates
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate certs list                    who has a certificate, and until when
  tidegate certs enroll-token device-013 let a device fetch its own
  tidegate certs revoke device-007       shut a lost device out, within a second
  tidegate certs rotate-ca --begin       change the CA while everything runs

The CA's key and the ledger of what it signed are in secrets/; certificates are in certs/.")]
pub(crate) struct Certs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the CA, and certificates for server, gateway, operator and every registered device
    Init,
    Issue(Issue),
    EnrollToken(EnrollToken),
    Enroll(Enroll),
    Renew(Renew),
    Revoke(Revoke),
    List(List),
    Export(Export),
    RotateCa(RotateCa),
    RefreshCrl(RefreshCrl),
}

impl Certs {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        match self.action {
            Action::Init => init(place)?,
            Action::Issue(issue) => issue.run(&place.load()?)?,
            Action::EnrollToken(token) => token.run(&place.load()?)?,
            Action::Enroll(enroll) => enroll.run(&place.load()?)?,
            Action::Renew(renew) => renew.run(&place.load()?)?,
            Action::Revoke(revoke) => revoke.run(&place.load()?)?,
            Action::List(list) => list.run(&place.load()?)?,
            Action::Export(export) => export.run(&place.load()?)?,
            Action::RotateCa(rotate) => rotate.run(&place.load()?)?,
            Action::RefreshCrl(refresh) => refresh.run(&place.load()?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn init(place: &Place) -> Result<()> {
    let (config, mut made) = setup::prepare_with_all_certificates(place)?;
    if CaPaths::of(&config).has_key() {
        let adopted = Ca::open(&config)?.adopt()?;
        if adopted > 0 {
            made.push(format!(
                "ledger         {adopted} certificates that were not in it"
            ));
        }
    }
    if made.is_empty() {
        anstream::println!("Everything is there already; nothing was changed.");
    }
    for line in made {
        anstream::println!("made {line}");
    }
    List::table().run(&config)
}

/// What a certificate says, for one more of its kind and life.
fn profile_like(info: &CertificateInfo, config: &Config) -> Result<Profile> {
    let shown = info.path.display();
    let profile = match (info.role, &info.identity, info.usage) {
        (Some(role), Some(id), Usage::Client) => Profile::client(role, id.clone()),
        (None, None, Usage::Server) => server_profile(config)?,
        _ => bail!("{shown} is the certificate of neither a server nor a client of ours"),
    };
    let life = info.not_after.since(info.not_before);
    Ok(profile.lasting(life.saturating_sub(BACKDATE)))
}

/// A file name of ours is also an identity, so it has no slashes.
fn certificate_file(config: &Config, name: &str) -> Result<std::path::PathBuf> {
    tidegate_envelope::id::DeviceId::new(name)?;
    let path = config.files.certs.join(format!("{name}.pem"));
    if !path.exists() {
        bail!(
            "there is no {}; `tidegate certs issue {name}` makes it",
            path.display()
        );
    }
    Ok(path)
}

/// Says that lists were written, and who takes them.
fn say_written(config: &Config, written: &[Written]) {
    let lists = CaPaths::of(config).lists;
    for list in written {
        anstream::println!(
            "wrote {}: number {} of CA {}, {} revoked, in force until {}",
            lists.display(),
            list.number,
            short(&list.authority),
            list.revoked,
            minute(list.next_update)
        );
    }
}

/// The start of a key id: enough to tell two CAs apart.
fn short(key_id: &str) -> &str {
    key_id.get(..8).unwrap_or(key_id)
}

fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

fn minute(time: Timestamp) -> String {
    let text: String = time.to_string().chars().take(16).collect();
    text.replace('T', " ") + " UTC"
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// Opens the CA for a command that cannot do without its key.
fn open_ca(config: &Config) -> Result<Ca> {
    let paths = CaPaths::of(config);
    if paths.bundle.exists() && !paths.has_key() {
        bail!(
            "the CA's key {} is not on this machine; run this where it is",
            paths.key.display()
        );
    }
    Ca::open(config).context("this needs the CA")
}
