//! The first run: makes what is missing, and reuses what is there.

use crate::cli::Place;
use crate::clock;
use crate::config::{self, Config};
use crate::devices::DevicesFile;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceId;
use tidegate_pki::authority::Authority;
use tidegate_pki::inspect;
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
    let authority = authority(config, made)?;
    let issue_missing = |name: &str, profile: Profile| -> Result<bool> {
        if certs.join(format!("{name}.pem")).exists() {
            return Ok(false);
        }
        issue(&authority, certs, name, &profile, false)?;
        Ok(true)
    };
    let server = Profile::server(&config.listen.server_names).context("listen.server_names")?;
    let mut issued = u32::from(issue_missing(SERVER, server)?);
    issued += u32::from(issue_missing(GATEWAY, Profile::gateway(DeviceId::new(GATEWAY)?))?);
    issued += u32::from(issue_missing(
        OPERATOR,
        Profile::operator(DeviceId::new(OPERATOR)?),
    )?);
    let without = |id: &&str| !certs.join(format!("{id}.pem")).exists();
    let devices = registry.devices.iter().map(|device| device.id.as_str());
    let missing: Vec<_> = devices.filter(without).collect();
    if missing.len() > most_issued {
        made.push(format!(
            "certificates   none yet for {} devices; `tidegate certs init` issues them",
            missing.len()
        ));
    } else {
        for id in missing {
            let profile = Profile::device(DeviceId::new(id)?);
            issued += u32::from(issue_missing(id, profile)?);
        }
    }
    if issued > 0 {
        made.push(format!("certificates   {issued} in {}", certs.display()));
    }
    Ok(())
}

/// Opens the CA, or makes it on the first run.
pub(crate) fn authority(config: &Config, made: &mut Vec<String>) -> Result<Authority> {
    let (certs, secrets) = (&config.files.certs, &config.files.secrets);
    let certificate = certs.join("ca.pem");
    if certificate.exists() {
        return Authority::open(&certificate, &secrets.join("ca-key.pem")).context("cannot use the CA");
    }
    fs::create_dir_all(certs).with_context(|| format!("cannot create {}", certs.display()))?;
    let authority = Authority::create(&certificate, &secrets.join("ca-key.pem"), clock::now())
        .context("cannot make the CA")?;
    made.push(format!("CA             {}", certificate.display()));
    Ok(authority)
}

/// Issues a certificate and writes it with its key as `NAME.pem` and `NAME-key.pem`.
pub(crate) fn issue(
    authority: &Authority,
    certs: &Path,
    name: &str,
    profile: &Profile,
    replace: bool,
) -> Result<PathBuf> {
    let issued = authority
        .issue(profile, clock::now())
        .with_context(|| format!("cannot issue a certificate for {name}"))?;
    issued
        .write(certs, name, replace)
        .with_context(|| format!("cannot write the certificate of {name}"))?;
    Ok(certs.join(format!("{name}.pem")))
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
