//! The first run: makes what is missing, and reuses what is there.

pub(crate) mod ca;

pub(crate) use ca::{Ca, CaPaths};

use crate::cli::Place;
use crate::clock;
use crate::config::{self, Config};
use crate::devices::DevicesFile;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use tidegate_envelope::id::DeviceId;
use tidegate_pki::inspect;
use tidegate_pki::ledger::How;
use tidegate_pki::profile::Profile;
use zeroize::Zeroizing;

/// The gateway's certificate name.
pub(crate) const GATEWAY: &str = "gateway";
/// The operator's certificate name.
pub(crate) const OPERATOR: &str = "operator";
/// The server's certificate name.
pub(crate) const SERVER: &str = "server";

/// Certificates for more devices than this are not issued in passing: at some milliseconds each, a
/// start would take minutes.
const MOST_ISSUED: usize = 5_000;

/// Devices in the registry that a first run writes.
pub(crate) const DEFAULT_DEVICES: u32 = 12;

/// Makes configuration, keys, certificates, registry and folders where they are missing.
///
/// Returns what was made, in words. Everything made here is enough for `up`, `broker`, `gateway`
/// and `sensor`. Nothing that exists is overwritten.
pub(crate) fn prepare(place: &Place, devices: Option<u32>) -> Result<(Config, Vec<String>)> {
    make_missing(place, devices, MOST_ISSUED)
}

/// The same, with a certificate for every device, however many there are.
pub(crate) fn prepare_with_all_certificates(place: &Place) -> Result<(Config, Vec<String>)> {
    make_missing(place, None, usize::MAX)
}

fn make_missing(place: &Place, devices: Option<u32>, most_issued: usize) -> Result<(Config, Vec<String>)> {
    let mut made = Vec::new();
    fs::create_dir_all(&place.dir).with_context(|| format!("cannot create {}", place.dir.display()))?;
    let path = place.config_path();
    if !path.exists() {
        write_new(&path, config::TEMPLATE.as_bytes(), 0o644)?;
        made.push(format!("configuration  {}", path.display()));
    }
    let config = place.load()?;
    for folder in [&config.files.secrets, &config.files.data] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    root_key(&config, &mut made)?;
    let registry = registry_file(&config, devices, &mut made)?;
    certificates(&config, &registry, most_issued, &mut made)?;
    Ok((config, made))
}

fn root_key(config: &Config, made: &mut Vec<String>) -> Result<()> {
    let path = config.files.root_key();
    if path.exists() {
        return Ok(());
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    getrandom::fill(key.as_mut()).context("the operating system gave no random bytes")?;
    write_new(&path, key.as_ref(), 0o600)?;
    made.push(format!("root key       {}", path.display()));
    Ok(())
}

fn registry_file(config: &Config, devices: Option<u32>, made: &mut Vec<String>) -> Result<DevicesFile> {
    let path = &config.files.registry;
    if !path.exists() {
        let mut file = DevicesFile::for_demo(devices.unwrap_or(DEFAULT_DEVICES));
        file.save(path)?;
        made.push(format!(
            "registry       {} with {} devices",
            path.display(),
            file.devices.len()
        ));
        return Ok(file);
    }
    let mut file = DevicesFile::load(path)?;
    let added = devices.map_or(0, |count| file.extend_to(count));
    if added > 0 {
        file.save(path)?;
        made.push(format!(
            "registry       {added} more devices in {}",
            path.display()
        ));
    }
    Ok(file)
}

fn certificates(
    config: &Config,
    registry: &DevicesFile,
    most_issued: usize,
    made: &mut Vec<String>,
) -> Result<()> {
    let certs = &config.files.certs;
    let is_missing = |name: &str| !certs.join(format!("{name}.pem")).exists();
    let paths = CaPaths::of(config);
    if paths.bundle.exists() && !paths.has_key() && ![SERVER, GATEWAY].into_iter().any(is_missing) {
        // The CA is on another machine, which also signs the revocation lists.
        return Ok(());
    }
    let taken_over = paths.bundle.exists() && !paths.ledger.exists();
    let ca = Ca::open_or_create(config, made)?;
    if taken_over {
        let count = ca.adopt()?;
        made.push(format!(
            "ledger         {} with {count} certificates that were there",
            paths.ledger.display()
        ));
    }
    // A device may have its certificate elsewhere, and alone: enrolled, or carried there by hand. One
    // more from here would take its place in the ledger. And who was revoked gets none in passing.
    let now = clock::now();
    let certificates = ca.ledger.certificates()?;
    let known = certificates.iter().filter(|entry| entry.record.not_after > now);
    let served: HashSet<_> = known.map(|entry| entry.record.id.as_str()).collect();
    let devices = registry.devices.iter().map(|device| device.id.as_str());
    let without: Vec<_> = devices
        .filter(|id| is_missing(id) && !served.contains(id))
        .collect();
    let mut jobs: Vec<(&str, Profile)> = Vec::new();
    if is_missing(SERVER) {
        jobs.push((SERVER, ca::server_profile(config)?));
    }
    if is_missing(GATEWAY) {
        jobs.push((GATEWAY, Profile::gateway(DeviceId::new(GATEWAY)?)));
    }
    if is_missing(OPERATOR) {
        jobs.push((OPERATOR, Profile::operator(DeviceId::new(OPERATOR)?)));
    }
    if without.len() > most_issued {
        made.push(format!(
            "certificates   none yet for {} devices; `tidegate certs init` issues them",
            without.len()
        ));
    } else {
        for id in without {
            jobs.push((id, Profile::device(DeviceId::new(id)?)));
        }
    }
    if !jobs.is_empty() {
        let bar = progress(jobs.len(), "certificates");
        for (name, profile) in &jobs {
            ca.issue(name, profile, How::Issued, false)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        made.push(format!("certificates   {} in {}", jobs.len(), certs.display()));
    }
    let had_list = paths.lists.exists();
    if ca.refresh(now)?.is_some() && !had_list {
        made.push(format!("revocation     {}", paths.lists.display()));
    }
    Ok(())
}

/// A bar for work that takes a while; it appears only in a terminal, and only when there is much.
pub(crate) fn progress(steps: usize, what: &'static str) -> ProgressBar {
    /// Fewer steps than this are done before anyone looks.
    const WORTH_SHOWING: usize = 50;
    if steps < WORTH_SHOWING {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} to go") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// Refuses a certificate that has expired or is not valid yet, naming the fix.
pub(crate) fn refuse_expired(config: &Config, names: &[&str]) -> Result<()> {
    let now = clock::now();
    for name in std::iter::once(&"ca").chain(names) {
        let path = config.files.certs.join(format!("{name}.pem"));
        let shown = path.display();
        let info =
            inspect::certificate(&path).with_context(|| format!("cannot read the certificate {shown}"))?;
        if info.not_after < now {
            bail!(
                "the certificate {shown} expired at {}; run `tidegate certs issue {name} --force`",
                info.not_after
            );
        }
        if info.not_before > now {
            bail!(
                "the certificate {shown} is valid only from {}; is this machine's clock right? it says {now}",
                info.not_before
            );
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .with_context(|| format!("cannot write {}", path.display()))
}
