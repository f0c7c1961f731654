//! A device's certificate and key on the disk, always those of one pair.
//!
//! Other programs read `NAME.pem` and `NAME-key.pem`. No file system replaces two files at once, so
//! both are symbolic links through a third, which is replaced by one rename:
//!
//! ```text
//! device-001.pem      -> device-001.d/current/device-001.pem
//! device-001-key.pem  -> device-001.d/current/device-001-key.pem
//! device-001.d/current -> 2
//! device-001.d/2/      the pair
//! device-001.d/lock    held while the pair is changed
//! ```
//!
//! A new pair is written beside the old one and synced; then `current` leads to it; then the old
//! one is removed. A certificate that lies there as two plain files becomes such a pair first. A
//! crash at any point leaves the old pair or the new one.

mod disk;

use self::disk::{Disk, FileSystem};
use super::EnrollError;
use rustls::ClientConfig;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_envelope::id::DeviceId;
use tidegate_pki::files::{self, MAX_CHAIN, PRIVATE_MODE, PUBLIC_MODE};
use tidegate_pki::inspect::{self, CertificateInfo};
use tidegate_pki::tls::{ClientTls, TlsError, client_config};
use zeroize::Zeroizing;

const CURRENT: &str = "current";
const LOCK: &str = "lock";
/// Reads of a pair that is exchanged meanwhile; one exchange takes far less time than two of these.
const READS: usize = 3;

/// Where a device's certificate, its key and its CA are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    folder: PathBuf,
    device: DeviceId,
}

impl IdentityFiles {
    /// The files of `device` in `folder`, whether they are there or not.
    pub fn new(folder: &Path, device: &DeviceId) -> Result<Self, EnrollError> {
        if files::is_reserved(device.as_str()) {
            return Err(EnrollError::Reserved(device.clone()));
        }
        Ok(Self {
            folder: folder.into(),
            device: device.clone(),
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }

    /// `NAME.pem`.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(self.certificate_name())
    }

    /// `NAME-key.pem`, readable by its owner only.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join(self.key_name())
    }

    /// `ca.pem`: the CAs that the device trusts.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The certificate and the key as they are now: of one pair, also when another process
    /// exchanges the pair before both are read.
    #[must_use]
    pub fn pair(&self) -> (PathBuf, PathBuf) {
        let plain = (self.certificate(), self.key());
        let linked = self.is_linked(&plain.0) && self.is_linked(&plain.1);
        match fs::read_link(self.current()) {
            Ok(generation) if linked => {
                let generation = self.generations().join(generation);
                (
                    generation.join(self.certificate_name()),
                    generation.join(self.key_name()),
                )
            }
            _ => plain,
        }
    }

    /// What the certificate says.
    pub fn inspect(&self) -> Result<CertificateInfo, EnrollError> {
        Ok(inspect::certificate(&self.certificate())?)
    }

    /// A TLS client that trusts the CAs and shows the certificate, to the broker as well as to the
    /// enrolment service.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, EnrollError> {
        let mut read = 1;
        loop {
            let pair = self.pair();
            let config = client_config(&ClientTls {
                ca: self.ca(),
                identity: Some(pair.clone()),
            });
            match config {
                Ok(config) => return Ok(config),
                Err(TlsError::File(_) | TlsError::Identity { .. }) if read < READS && pair != self.pair() => {
                    read += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The first of certificate and key that is there.
    pub(super) fn existing(&self) -> Option<PathBuf> {
        [self.certificate(), self.key()]
            .into_iter()
            .find(|path| path.exists())
    }

    /// Whether `ca.pem` is of a wholly other set of CAs: the folder belongs to another gateway.
    pub(super) fn trusts_none_of(&self, authorities: &[CertificateInfo]) -> bool {
        inspect::bundle(&self.ca()).is_ok_and(|present| !present.iter().any(|info| holds(authorities, info)))
    }

    /// The CAs' file as it is.
    pub(crate) fn authorities(&self) -> Option<Vec<u8>> {
        fs::read(self.ca()).ok()
    }

    /// Writes the key of the next pair, beside the current one. Whoever has this can bring the next
    /// pair in place as well: what is left to write is small.
    pub(super) fn prepare(self, key_pem: &str) -> Result<Prepared, EnrollError> {
        self.prepare_on(Box::new(FileSystem), key_pem)
    }

    fn prepare_on(self, mut disk: Box<dyn Disk>, key_pem: &str) -> Result<Prepared, EnrollError> {
        let generations = self.generations();
        let is_new = !self.folder.exists();
        for folder in [&self.folder, &generations] {
            disk.make_folder(folder).map_err(failed("make", folder))?;
        }
        if is_new {
            let above = match self.folder.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            disk.sync_names(above).map_err(failed("sync", above))?;
        }
        let lock = self.lock()?;
        let number = self.next_number().map_err(failed("read", &generations))?;
        let generation = generations.join(number.to_string());
        disk.make_folder(&generation)
            .map_err(failed("make", &generation))?;
        let key = generation.join(self.key_name());
        let mut prepared = Prepared {
            files: self,
            disk,
            generation,
            committed: false,
            _lock: lock,
        };
        prepared
            .disk
            .write(&key, key_pem.as_bytes(), PRIVATE_MODE)
            .map_err(failed("write", &key))?;
        Ok(prepared)
    }

    fn lock(&self) -> Result<File, EnrollError> {
        let path = self.generations().join(LOCK);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(EnrollError::InUse {
                device: self.device.clone(),
                path,
            }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        }
    }

    /// A number that no pair in the folder has, left ones of a crash included.
    fn next_number(&self) -> io::Result<u64> {
        let mut last = 0;
        for entry in fs::read_dir(self.generations())? {
            last = last.max(number(&entry?.file_name()).unwrap_or(0));
        }
        last.checked_add(1)
            .ok_or_else(|| io::Error::other("a pair has the last number there is"))
    }

    fn is_linked(&self, path: &Path) -> bool {
        fs::read_link(path).is_ok_and(|target| Some(target) == self.link_target(path))
    }

    /// Where the link at `path` leads, seen from the folder: the folder may be moved.
    fn link_target(&self, path: &Path) -> Option<PathBuf> {
        let generations = PathBuf::from(self.generations_name());
        path.file_name().map(|name| generations.join(CURRENT).join(name))
    }

    fn certificate_name(&self) -> String {
        format!("{}.pem", self.device)
    }

    fn key_name(&self) -> String {
        format!("{}-key.pem", self.device)
    }

    fn generations_name(&self) -> String {
        format!("{}.d", self.device)
    }

    fn generations(&self) -> PathBuf {
        self.folder.join(self.generations_name())
    }

    fn current(&self) -> PathBuf {
        self.generations().join(CURRENT)
    }
}

/// A pair of which the key is written. Dropped without [`Self::commit`], it goes.
#[derive(Debug)]
pub(super) struct Prepared {
    files: IdentityFiles,
    disk: Box<dyn Disk>,
    generation: PathBuf,
    committed: bool,
    _lock: File,
}

impl Prepared {
    /// Writes `ca.pem` where it differs; says whether it does.
    ///
    /// `before` is what it held before the new CAs were asked for. A file that has changed since is
    /// left alone: on the gateway's own machine the CA's owner writes it too, and knows better.
    pub(super) fn write_authorities(
        &self,
        authorities: &[CertificateInfo],
        before: Option<&[u8]>,
    ) -> Result<bool, EnrollError> {
        debug_assert!(authorities.len() <= MAX_CHAIN);
        let path = self.files.ca();
        if let Ok(present) = inspect::bundle(&path) {
            let same = present.iter().all(|info| holds(authorities, info))
                && authorities.iter().all(|info| holds(&present, info));
            if same || self.files.authorities().as_deref() != before {
                return Ok(false);
            }
        }
        let mut text = String::new();
        for info in authorities {
            // Writing to a string does not fail.
            let _ = write!(text, "{}", inspect::pem(&info.der));
        }
        files::write(&path, text.as_bytes(), PUBLIC_MODE, true)?;
        Ok(true)
    }

    /// Writes the certificate and puts the pair in place. The pair is safe when this returns.
    pub(super) fn commit(mut self, certificate: &CertificateInfo) -> Result<IdentityFiles, EnrollError> {
        let files = self.files.clone();
        let generations = files.generations();
        let path = self.generation.join(files.certificate_name());
        let pem = inspect::pem(&certificate.der);
        self.disk
            .write(&path, pem.as_bytes(), PUBLIC_MODE)
            .map_err(failed("write", &path))?;
        for folder in [&self.generation, &generations] {
            self.disk.sync_names(folder).map_err(failed("sync", folder))?;
        }
        self.link_names()?;
        let generation = self.generation.clone();
        self.switch_to(&generation)?;
        self.committed = true;
        self.remove_others();
        Ok(files)
    }

    /// Makes both names lead to the current pair. Plain files are copied into a pair of their own
    /// first, so that what they hold stays what the names lead to.
    fn link_names(&mut self) -> Result<(), EnrollError> {
        let (certificate, key) = (self.files.certificate(), self.files.key());
        if self.files.is_linked(&certificate) && self.files.is_linked(&key) {
            return Ok(());
        }
        if self.files.existing().is_some() {
            self.keep_plain(&certificate, &key)?;
        } else {
            // Names that lead nowhere must not come to life with what `current` leads to by chance.
            let current = self.files.current();
            self.disk.remove(&current).map_err(failed("remove", &current))?;
        }
        for path in [key, certificate] {
            let Some(target) = self.files.link_target(&path) else {
                continue;
            };
            self.disk.link(&target, &path).map_err(failed("link", &path))?;
        }
        let folder = self.files.folder.clone();
        self.disk.sync_names(&folder).map_err(failed("sync", &folder))
    }

    fn keep_plain(&mut self, certificate: &Path, key: &Path) -> Result<(), EnrollError> {
        let generations = self.files.generations();
        let number = self.files.next_number().map_err(failed("read", &generations))?;
        let kept = generations.join(number.to_string());
        self.disk.make_folder(&kept).map_err(failed("make", &kept))?;
        for (path, mode) in [(key, PRIVATE_MODE), (certificate, PUBLIC_MODE)] {
            let (Some(name), true) = (path.file_name(), path.exists()) else {
                continue;
            };
            let bytes = fs::read(path).map(Zeroizing::new).map_err(failed("read", path))?;
            let copy = kept.join(name);
            self.disk
                .write(&copy, &bytes, mode)
                .map_err(failed("write", &copy))?;
        }
        for folder in [&kept, &generations] {
            self.disk.sync_names(folder).map_err(failed("sync", folder))?;
        }
        self.switch_to(&kept)
    }

    /// The one step that counts.
    fn switch_to(&mut self, generation: &Path) -> Result<(), EnrollError> {
        let current = self.files.current();
        let target = Path::new(generation.file_name().unwrap_or_default());
        self.disk
            .link(target, &current)
            .map_err(failed("link", &current))?;
        let folder = self.files.generations();
        self.disk.sync_names(&folder).map_err(failed("sync", &folder))
    }

    /// Removes all pairs but this one. What stays for once is removed the next time.
    fn remove_others(&mut self) {
        let Ok(entries) = fs::read_dir(self.files.generations()) else {
            return;
        };
        for entry in entries.flatten() {
            if number(&entry.file_name()).is_some() && entry.path() != self.generation {
                drop(self.disk.remove_folder(&entry.path()));
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // A failed commit may have come as far as `current`.
        let is_current = fs::read_link(self.files.current())
            .is_ok_and(|target| Some(target.as_os_str()) == self.generation.file_name());
        if !self.committed && !is_current {
            drop(self.disk.remove_folder(&self.generation));
        }
    }
}

fn holds(list: &[CertificateInfo], info: &CertificateInfo) -> bool {
    list.iter().any(|other| other.der == info.der)
}

fn number(name: &OsStr) -> Option<u64> {
    name.to_str()?.parse().ok()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnrollError {
    let path = path.to_owned();
    move |source| EnrollError::Folder { what, path, source }
}

#[cfg(test)]
mod tests;
