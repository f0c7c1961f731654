//! `tidegate certs rotate-ca`: from one CA to the next, with both trusted in between.
//!
//! Each step ends in a state that everything else understands, also when it is interrupted: the
//! lists of both CAs are there before the bundle names both, the bundle names one before the other's
//! list goes, and keys are found by the certificates they belong to.

use super::{certificate_file, open_ca, profile_like, say_written, short};
use crate::clock;
use crate::config::Config;
use crate::setup::ca::name_of;
use crate::setup::{self, Ca};
use anyhow::{Context, Result, bail};
use clap::Args;
use owo_colors::OwoColorize;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::files::{self, PUBLIC_MODE};
use tidegate_pki::inspect::{self, CertificateInfo, Usage};
use tidegate_pki::ledger::{CertificateRole, Entry, How, State};
use tidegate_pki::revocation;

/// Names that a message lists before it only counts.
const MAX_NAMED: usize = 10;

/// Change the CA while everything runs: --begin, --reissue, --finish
#[derive(Debug, Args)]
#[command(after_help = "In this order, with any time in between:
  tidegate certs rotate-ca --begin      makes a new CA; both are trusted, the new one issues
  tidegate certs rotate-ca --reissue    replaces the certificates in certs/ by those of the new CA
  tidegate certs rotate-ca --finish     the old CA is no longer trusted
  tidegate certs rotate-ca              how far it is

Devices that renew by themselves get the new CA with their next certificate; others need the new
certs/ca.pem before --reissue changes the server's certificate. A running gateway takes each step
within a second.")]
pub(super) struct RotateCa {
    /// Make the new CA and trust both
    #[arg(long, group = "step")]
    begin: bool,
    /// Replace the certificates in certs/ that are the old CA's
    #[arg(long, group = "step")]
    reissue: bool,
    /// Trust the new CA alone
    #[arg(long, group = "step")]
    finish: bool,
    /// Although devices would be shut out
    #[arg(long)]
    force: bool,
}

impl RotateCa {
    pub(super) fn run(self, config: &Config) -> Result<()> {
        let ca = open_ca(config)?;
        if self.begin {
            return begin(config, ca);
        }
        if self.reissue {
            return reissue(config, &ca, self.force);
        }
        if self.finish {
            return finish(config, &ca, self.force);
        }
        status(config, &ca)
    }
}

fn begin(config: &Config, ca: Ca) -> Result<()> {
    let now = clock::now();
    let paths = ca.paths.clone();
    if ca.bundle.len() > 1 {
        // An earlier --begin may have been interrupted before its last step.
        settle_keys(&ca)?;
        bail!(
            "the CA is being changed already: {} trusts {} CAs; `tidegate certs rotate-ca` shows how far it is",
            paths.bundle.display(),
            ca.bundle.len()
        );
    }
    if paths.old_key.exists() {
        bail!(
            "{} is left of an earlier change and belongs to no CA in use; move it away first",
            paths.old_key.display()
        );
    }
    let mut ledger = ca.ledger.lock()?;
    if paths.new_key.exists() {
        // Of a --begin that was interrupted before anything trusted this key.
        fs::remove_file(&paths.new_key)
            .with_context(|| format!("cannot remove {}", paths.new_key.display()))?;
    }
    let old = ca.authorities.into_iter().next().context("the CA has no key")?;
    let new = Authority::generate(now).context("cannot make the new CA")?;
    new.write_key(&paths.new_key)?;
    let bundle = format!("{}{}", new.certificate_pem(), old.certificate_pem());
    let names = [new.key_id(), old.key_id()];
    let written = revocation::write_lists(&mut ledger, &[new, old], &paths.lists, now)
        .context("cannot write the revocation lists of both CAs")?;
    files::write(&paths.bundle, bundle.as_bytes(), PUBLIC_MODE, true)?;
    drop(ledger);
    settle_keys(&Ca::open(config)?)?;

    anstream::println!(
        "made CA {}; it signs new certificates from now on",
        short(&names[0])
    );
    anstream::println!(
        "{} holds it and the old CA {}; both are trusted",
        paths.bundle.display(),
        short(&names[1])
    );
    say_written(config, &written);
    anstream::println!(
        "\nNext:\n  1. bring {} to devices that do not renew by themselves\n  2. tidegate certs rotate-ca --reissue\n  \
         3. tidegate certs rotate-ca --finish",
        paths.bundle.display()
    );
    Ok(())
}

fn reissue(config: &Config, ca: &Ca, force: bool) -> Result<()> {
    let (_, old) = both(ca)?;
    let now = clock::now();
    let closed = closed_serials(ca, now)?;
    let mut mine = files_of(config, old)?;
    mine.retain(|info| info.is_valid(now) && !closed.contains(&info.serial));
    // Clients first: the server's certificate is what those who do not know the new CA would refuse.
    mine.sort_by_key(|info| info.usage == Usage::Server);
    let elsewhere = elsewhere(ca, old, &mine, now)?;
    let keep_server = !elsewhere.is_empty() && !force;
    let servers = mine.iter().filter(|info| info.usage == Usage::Server).count();
    let count = mine.len() - if keep_server { servers } else { 0 };
    let bar = setup::progress(count, "certificates");
    let mut done = 0;
    for info in &mine {
        let name = name_of(&info.path);
        if keep_server && info.usage == Usage::Server {
            continue;
        }
        ca.issue(&name, &profile_like(info, config)?, How::Renewed, true)?;
        bar.inc(1);
        done += 1;
    }
    bar.finish_and_clear();
    anstream::println!("reissued {done} certificates in {}", config.files.certs.display());
    if keep_server && servers > 0 {
        anstream::println!(
            "{} the server keeps its certificate of the old CA, because {} have theirs elsewhere and may not know the \
             new CA yet: {}\nRun this again when they have renewed, or with --force when they have the new {}.",
            "note:".yellow().bold(),
            counted(elsewhere.len()),
            named(&elsewhere),
            ca.paths.bundle.display()
        );
        return Ok(());
    }
    if elsewhere.is_empty() {
        anstream::println!("Next: tidegate certs rotate-ca --finish");
    } else {
        anstream::println!(
            "Next, when {} with certificates elsewhere have renewed ({}): tidegate certs rotate-ca --finish",
            counted(elsewhere.len()),
            named(&elsewhere)
        );
    }
    Ok(())
}

fn finish(config: &Config, ca: &Ca, force: bool) -> Result<()> {
    let now = clock::now();
    let (new, old) = both(ca)?;
    let users = shut_out_without(config, ca, old, now)?;
    if !users.is_empty() && !force {
        bail!(
            "{} still use certificates of the old CA: {}; `rotate-ca --reissue` replaces those in {}, the others renew \
             or expire; --force shuts them out",
            counted(users.len()),
            named(&users),
            config.files.certs.display()
        );
    }
    settle_keys(ca)?;
    let mut ledger = ca.ledger.lock()?;
    let short_old = hex::encode(&old.key_id);
    let short_old = short(&short_old);
    let secrets = ca.paths.old_key.parent().unwrap_or(Path::new("."));
    let retired = secrets.join(format!("ca-retired-{short_old}.pem"));
    let retired_key = secrets.join(format!("ca-key-retired-{short_old}.pem"));
    files::write(&retired, inspect::pem(&old.der).as_bytes(), PUBLIC_MODE, true)?;
    files::write(
        &ca.paths.bundle,
        inspect::pem(&new.der).as_bytes(),
        PUBLIC_MODE,
        true,
    )?;
    if ca.paths.old_key.exists() {
        fs::rename(&ca.paths.old_key, &retired_key)
            .with_context(|| format!("cannot rename {}", ca.paths.old_key.display()))?;
        sync_folder(secrets)?;
    }
    let written = Ca::open(config)?.write_lists(&mut ledger, now)?;
    anstream::println!(
        "CA {short_old} is no longer trusted; {} holds the new one alone",
        ca.paths.bundle.display()
    );
    if !users.is_empty() {
        anstream::println!("shut out: {}", named(&users));
    }
    say_written(config, &written);
    anstream::println!(
        "its key lies in {} and is of no use here; delete it when no device trusts the old CA any more",
        retired_key.display()
    );
    Ok(())
}

fn status(config: &Config, ca: &Ca) -> Result<()> {
    let now = clock::now();
    for (position, info) in ca.bundle.iter().enumerate() {
        let users = in_use(ca, info, now)?;
        let key_id = hex::encode(&info.key_id);
        anstream::println!(
            "CA {} {}: valid until {}, {} of its certificates in use",
            short(&key_id),
            if position == 0 {
                "issues"
            } else {
                "is being replaced"
            },
            super::day(info.not_after),
            users.len()
        );
        if position > 0 && !users.is_empty() {
            anstream::println!("  {}", named(&users));
        }
    }
    let next = match ca.bundle.get(1) {
        None => "nothing is being changed; `tidegate certs rotate-ca --begin` starts",
        Some(old) if shut_out_without(config, ca, old, now)?.is_empty() => {
            "next: tidegate certs rotate-ca --finish"
        }
        Some(_) => "next: tidegate certs rotate-ca --reissue, or wait until devices have renewed",
    };
    anstream::println!("{next}");
    Ok(())
}

/// The new CA and the old one.
fn both(ca: &Ca) -> Result<(&CertificateInfo, &CertificateInfo)> {
    match &ca.bundle[..] {
        [new, old] => Ok((new, old)),
        [_] => bail!("the CA is not being changed; `tidegate certs rotate-ca --begin` starts"),
        more => bail!(
            "{} holds {} CAs; a change is between two",
            ca.paths.bundle.display(),
            more.len()
        ),
    }
}

/// Gives the keys their names: `ca-key.pem` is the key of the first CA of the bundle.
fn settle_keys(ca: &Ca) -> Result<()> {
    let paths = &ca.paths;
    if !paths.new_key.exists() {
        return Ok(());
    }
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    };
    let first = hex::encode(&ca.bundle[0].key_id);
    let owner = |key: &Path| Authority::open(&paths.bundle, key).map(|authority| authority.key_id());
    if owner(&paths.new_key)? != first {
        bail!(
            "{} does not belong to the CA that issues",
            paths.new_key.display()
        );
    }
    if paths.key.exists() {
        if paths.old_key.exists() {
            bail!(
                "both {} and {} are there",
                paths.key.display(),
                paths.old_key.display()
            );
        }
        rename(&paths.key, &paths.old_key)?;
    }
    rename(&paths.new_key, &paths.key)?;
    sync_folder(paths.key.parent().unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot write {}", folder.display()))
}

/// The certificates in certs/ that `authority` signed.
fn files_of(config: &Config, authority: &CertificateInfo) -> Result<Vec<CertificateInfo>> {
    let authority = std::slice::from_ref(authority);
    let all = inspect::list(&config.files.certs)?.into_iter().flatten();
    let signed = all
        .filter(|info| info.usage != Usage::Authority && inspect::issuer_of(&info.der, authority).is_some());
    // Only those that `renew` could name.
    Ok(signed
        .filter(|info| certificate_file(config, &name_of(&info.path)).is_ok())
        .collect())
}

/// Whom it would shut out if `old` were no longer trusted: holders in the ledger, and of files in
/// certs/ that the ledger may not have.
fn shut_out_without(config: &Config, ca: &Ca, old: &CertificateInfo, now: Timestamp) -> Result<Vec<String>> {
    let mut users = in_use(ca, old, now)?;
    let entries = ca.ledger.certificates()?;
    let recorded: HashSet<_> = entries.iter().map(|entry| entry.record.serial.as_str()).collect();
    let files = files_of(config, old)?.into_iter();
    let good = files.filter(|info| info.is_valid(now) && !recorded.contains(info.serial.as_str()));
    users.extend(good.map(|info| name_of(&info.path)));
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Holders whose newest certificate is of `authority`, and accepted.
fn in_use(ca: &Ca, authority: &CertificateInfo, now: Timestamp) -> Result<Vec<String>> {
    let users = newest_of(ca, authority, now)?;
    Ok(users
        .into_iter()
        .map(|entry| entry.record.id.to_string())
        .collect())
}

/// Devices whose newest certificate is of `authority` and does not lie in certs/.
fn elsewhere(
    ca: &Ca,
    authority: &CertificateInfo,
    here: &[CertificateInfo],
    now: Timestamp,
) -> Result<Vec<String>> {
    let here: HashSet<_> = here.iter().map(|info| info.serial.as_str()).collect();
    let users = newest_of(ca, authority, now)?.into_iter();
    let away = users
        .filter(|entry| entry.record.role == CertificateRole::Device)
        .filter(|entry| !here.contains(entry.record.serial.as_str()));
    Ok(away.map(|entry| entry.record.id.to_string()).collect())
}

fn newest_of(ca: &Ca, authority: &CertificateInfo, now: Timestamp) -> Result<Vec<Entry>> {
    let authority = hex::encode(&authority.key_id);
    let mut entries = ca.ledger.certificates()?;
    entries.retain(|entry| entry.record.authority == authority && entry.state(now) == State::Valid);
    Ok(entries)
}

/// Certificates that are not to be followed by another: revoked, or the holder has a newer one, which
/// may lie elsewhere.
fn closed_serials(ca: &Ca, now: Timestamp) -> Result<HashSet<String>> {
    let entries = ca.ledger.certificates()?.into_iter();
    let closed =
        entries.filter(|entry| matches!(entry.state(now), State::Revoked { .. } | State::Superseded));
    Ok(closed.map(|entry| entry.record.serial).collect())
}

fn counted(count: usize) -> String {
    match count {
        1 => "1 holder".into(),
        count => format!("{count} holders"),
    }
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}
