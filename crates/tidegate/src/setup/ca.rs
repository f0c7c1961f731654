//! The CA of an installation with its ledger and revocation lists: every certificate that this
//! program makes by hand passes through here, so that none is missing from the ledger.

use super::SERVER;
use crate::clock;
use crate::config::Config;
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::{Authority, AuthorityError};
use tidegate_pki::files;
use tidegate_pki::inspect::{self, CertificateInfo};
use tidegate_pki::ledger::{How, KEEP_EXPIRED, Ledger, Locked, Record};
use tidegate_pki::profile::Profile;
use tidegate_pki::revocation::{self, Written};

/// A ledger larger than this is rid of what expired long ago, once a day.
const TIDY_ABOVE_BYTES: u64 = 32 << 20;

/// Where the CA's things lie.
#[derive(Debug, Clone)]
pub(crate) struct CaPaths {
    /// The certificates of all CAs that are trusted: one, or two while the CA is changed.
    pub(crate) bundle: PathBuf,
    /// The revocation lists of all of them.
    pub(crate) lists: PathBuf,
    /// The key of the CA that issues.
    pub(crate) key: PathBuf,
    /// The key of a new CA, while `rotate-ca --begin` is at work.
    pub(crate) new_key: PathBuf,
    /// The key of the CA before it, which still signs its list until `rotate-ca --finish`.
    pub(crate) old_key: PathBuf,
    /// What was issued and revoked.
    pub(crate) ledger: PathBuf,
    /// The enrolment tokens.
    pub(crate) tokens: PathBuf,
}

impl CaPaths {
    pub(crate) fn of(config: &Config) -> Self {
        let (certs, secrets) = (&config.files.certs, &config.files.secrets);
        Self {
            bundle: certs.join("ca.pem"),
            lists: certs.join("crl.pem"),
            key: secrets.join("ca-key.pem"),
            new_key: secrets.join("ca-key-new.pem"),
            old_key: secrets.join("ca-key-old.pem"),
            ledger: secrets.join("certificates.jsonl"),
            tokens: secrets.join("enroll-tokens.json"),
        }
    }

    /// Whether this machine has the key of a CA. Gateways without one get their certificates and
    /// lists from elsewhere.
    pub(crate) fn has_key(&self) -> bool {
        [&self.key, &self.new_key, &self.old_key]
            .into_iter()
            .any(|path| path.exists())
    }
}

/// The CAs of this installation, and their ledger.
#[derive(Debug)]
pub(crate) struct Ca {
    /// Those of the bundle whose keys are here, in its order. The first one issues.
    pub(crate) authorities: Vec<Authority>,
    /// All CAs of the bundle.
    pub(crate) bundle: Vec<CertificateInfo>,
    /// What was issued and revoked.
    pub(crate) ledger: Ledger,
    /// Where all of it lies.
    pub(crate) paths: CaPaths,
    certs: PathBuf,
}

impl Ca {
    /// Opens the CA that is there.
    ///
    /// During a rotation, or after one that was interrupted, the keys are found by the certificates
    /// they belong to and not by their names.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let paths = CaPaths::of(config);
        if !paths.bundle.exists() {
            let certs = config.files.certs.display();
            bail!("there is no CA in {certs}; run `tidegate certs init` first");
        }
        let bundle = inspect::bundle(&paths.bundle).context("cannot use the CA")?;
        let mut found = Vec::new();
        for key in [&paths.key, &paths.new_key, &paths.old_key] {
            match Authority::open(&paths.bundle, key) {
                Ok(authority) => found.push(authority),
                // Of a CA that is no longer in the bundle, or not yet.
                Err(AuthorityError::KeyMismatch { .. }) if key != &paths.key => {}
                Err(_) if !key.exists() => {}
                Err(error) => return Err(error).context("cannot use the CA"),
            }
        }
        let mut authorities = Vec::new();
        for info in &bundle {
            let key_id = hex::encode(&info.key_id);
            match found.iter().position(|authority| authority.key_id() == key_id) {
                Some(position) => authorities.push(found.swap_remove(position)),
                None if authorities.is_empty() => bail!(
                    "cannot use the CA: {} is not the key of `{}`, the first CA in {}",
                    paths.key.display(),
                    info.subject,
                    paths.bundle.display()
                ),
                None => {}
            }
        }
        let ledger = Ledger::open(&paths.ledger).context("cannot use the CA's ledger")?;
        Ok(Self {
            authorities,
            bundle,
            ledger,
            paths,
            certs: config.files.certs.clone(),
        })
    }

    /// Opens the CA, or makes it on the first run.
    pub(crate) fn open_or_create(config: &Config, made: &mut Vec<String>) -> Result<Self> {
        let paths = CaPaths::of(config);
        if !paths.bundle.exists() {
            let certs = &config.files.certs;
            fs::create_dir_all(certs).with_context(|| format!("cannot create {}", certs.display()))?;
            Authority::create(&paths.bundle, &paths.key, clock::now()).context("cannot make the CA")?;
            made.push(format!("CA             {}", paths.bundle.display()));
        }
        Self::open(config)
    }

    /// The CA that issues.
    pub(crate) fn issuer(&self) -> &Authority {
        &self.authorities[0]
    }

    /// Issues a certificate, records it, and writes it with its key as `NAME.pem` and `NAME-key.pem`.
    pub(crate) fn issue(&self, name: &str, profile: &Profile, how: How, replace: bool) -> Result<PathBuf> {
        if name != SERVER && files::is_reserved(name) {
            bail!("a certificate cannot be named `{name}`: that file in certs/ is something else");
        }
        let path = self.certs.join(format!("{name}.pem"));
        for file in [&path, &self.certs.join(format!("{name}-key.pem"))] {
            if file.exists() && !replace {
                bail!("{} exists already; --force replaces it", file.display());
            }
        }
        let now = clock::now();
        let issued = self
            .issuer()
            .issue(profile, now)
            .with_context(|| format!("cannot issue a certificate for {name}"))?;
        let record = self.record_of(&issued.certificate_pem, name, how, now)?;
        // Recorded first: a certificate that nobody gets does no harm, one that nobody knows of does.
        self.ledger
            .record(record)
            .context("cannot record the certificate")?;
        issued
            .write(&self.certs, name, replace)
            .with_context(|| format!("cannot write the certificate of {name}"))?;
        Ok(path)
    }

    /// Signs new lists of every CA.
    pub(crate) fn write_lists(&self, ledger: &mut Locked<'_>, now: Timestamp) -> Result<Vec<Written>> {
        self.refuse_missing_keys()?;
        revocation::write_lists(ledger, &self.authorities, &self.paths.lists, now)
            .context("cannot write the revocation list")
    }

    /// Records certificates in certs/ that the ledger does not know: those that were there before it.
    /// Returns how many.
    pub(crate) fn adopt(&self) -> Result<usize> {
        let now = clock::now();
        let mut ledger = self.ledger.lock()?;
        let known: HashSet<String> = ledger
            .certificates()?
            .into_iter()
            .map(|entry| entry.record.serial)
            .collect();
        let mut records = Vec::new();
        for info in inspect::list(&self.certs)?.into_iter().flatten() {
            if known.contains(&info.serial) {
                continue;
            }
            let name = name_of(&info.path);
            let (Some(authority), Ok(name)) =
                (inspect::issuer_of(&info.der, &self.bundle), DeviceId::new(&name))
            else {
                continue;
            };
            records.extend(Record::of(&info, &name, authority, How::Adopted, now));
        }
        let adopted = records.len();
        if adopted > 0 {
            ledger.record_all(records)?;
        }
        Ok(adopted)
    }

    /// Signs the lists anew where they are due; `None` where they are not.
    pub(crate) fn refresh(&self, now: Timestamp) -> Result<Option<Vec<Written>>> {
        self.refuse_missing_keys()?;
        let mut ledger = self.ledger.lock()?;
        if !revocation::is_due(&ledger, &self.authorities, &self.paths.lists, now)? {
            return Ok(None);
        }
        let written = self.write_lists(&mut ledger, now)?;
        let large = |metadata: fs::Metadata| metadata.len() > TIDY_ABOVE_BYTES;
        if fs::metadata(&self.paths.ledger).is_ok_and(large) {
            ledger
                .forget(now.minus(KEEP_EXPIRED))
                .context("cannot tidy the ledger")?;
        }
        Ok(Some(written))
    }

    fn refuse_missing_keys(&self) -> Result<()> {
        if self.authorities.len() < self.bundle.len() {
            bail!(
                "{} holds {} CAs, and the keys of only {} are in {}; the others' revocation lists cannot be signed here",
                self.paths.bundle.display(),
                self.bundle.len(),
                self.authorities.len(),
                self.paths.key.parent().unwrap_or(Path::new(".")).display()
            );
        }
        Ok(())
    }

    fn record_of(&self, pem: &str, name: &str, how: How, now: Timestamp) -> Result<Record> {
        let info = inspect::from_pem(pem, Path::new(name))?;
        let id = DeviceId::new(name)?;
        Record::of(&info, &id, &self.bundle_entry(), how, now)
            .context("the certificate is neither server's nor client's")
    }

    fn bundle_entry(&self) -> CertificateInfo {
        let key_id = self.issuer().key_id();
        let entry = self
            .bundle
            .iter()
            .find(|info| hex::encode(&info.key_id) == key_id);
        entry
            .expect("the issuing CA was found by its entry in the bundle")
            .clone()
    }
}

/// What [`refresh_crl`] did.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// The lists are young and complete.
    NotDue,
    /// New ones are on the disk.
    Written(Vec<Written>),
    /// The CA's key is elsewhere; somebody must bring new lists from there.
    NoKey,
}

/// Signs the revocation lists anew, well before they end: once a day, and at once when the ledger
/// knows of a revocation that they do not name. A running gateway calls this at start and every
/// hour or so; it does nothing most of the time.
pub(crate) fn refresh_crl(config: &Config) -> Result<Refreshed> {
    if !CaPaths::of(config).has_key() {
        return Ok(Refreshed::NoKey);
    }
    Ok(match Ca::open(config)?.refresh(clock::now())? {
        Some(written) => Refreshed::Written(written),
        None => Refreshed::NotDue,
    })
}

/// The profile of the server's certificate.
pub(crate) fn server_profile(config: &Config) -> Result<Profile> {
    Profile::server(&config.listen.server_names).context("listen.server_names")
}

/// The name of a certificate's file without `.pem`.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_stem()
        .unwrap_or(SERVER.as_ref())
        .to_string_lossy()
        .into_owned()
}
