//! Private keys and certificates on disk: written whole or not at all, keys for their owner only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest file that is read: certificate, key or revocation list.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// Longest certificate chain in one file.
pub const MAX_CHAIN: usize = 8;

/// Whether certificate and key of this name would be other files of the folder: `ca.pem`, `crl.pem`,
/// the server's, or another name's key.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    matches!(name, "ca" | "crl" | "server") || name.ends_with("-key")
}

/// Mode of files that hold a private key.
pub const PRIVATE_MODE: u32 = 0o600;
/// Mode of files that anyone may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// A file could not be used; the message names the file and, where there is one, the fix.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is missing or its permissions deny reading it.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder is missing or not writable, or the disk is full.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It exists, and replacing it was not asked for.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is too large to be what it should be.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Group or others may read the private key: it must be taken for known.
    #[error(
        "the private key {} is readable by others (mode {mode:04o}): run `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else, or nothing.
    #[error("{} holds no {expected}{}", path.display(), found(*is_key))]
    WrongFile {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// Whether it holds a private key instead.
        is_key: bool,
    },
    /// Its text is damaged.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        source: pem::Error,
    },
}

fn found(is_key: bool) -> &'static str {
    if is_key { ", but a private key" } else { "" }
}

/// Reads the certificates of a PEM file: one at least, the leaf first, [`MAX_CHAIN`] at most.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .take(MAX_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|source| FileError::Pem {
            path: path.into(),
            source,
        })?;
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        let is_key = PrivateKeyDer::from_pem_slice(&text).is_ok();
        return Err(FileError::WrongFile {
            path: path.into(),
            expected: "certificate",
            is_key,
        });
    }
    Ok(chain)
}

/// Reads a private key, and refuses a file that group or others may read.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read_private(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::WrongFile {
            path: path.into(),
            expected: "private key",
            is_key: false,
        },
        source => FileError::Pem {
            path: path.into(),
            source,
        },
    })
}

/// The bytes of a file with a secret in it; wiped when dropped. Refuses a file that group or others
/// may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // The opened file is asked, not the path: the path could lead elsewhere by now.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::KeyExposed {
            path: path.into(),
            mode,
        });
    }
    read_open(file, path).map(Zeroizing::new)
}

/// The bytes of a file, [`MAX_FILE_BYTES`] at most.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|source| FileError::Read {
        path: path.into(),
        source,
    })?;
    read_open(file, path)
}

fn read_open(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FileError::Read {
            path: path.into(),
            source,
        })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

/// Bytes in PEM with lines of 64 characters (RFC 7468 §2).
pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// Writes a file with `mode`, so that a reader sees the old content or the new and never a part.
///
/// The bytes are on the disk, and the name in its folder, when this returns. Without `replace`,
/// the name is taken with `create_new` first: of two writers, one fails.
pub fn write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> Result<(), FileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.into() },
        _ => FileError::Write {
            path: path.into(),
            source,
        },
    };
    if !replace {
        create_new(path, mode).map_err(failed)?;
    }
    let written = write_and_rename(path, bytes, mode);
    if written.is_err() && !replace {
        // The name that was taken above holds nothing; best effort, the error below is what counts.
        drop(fs::remove_file(path));
    }
    written.map_err(|source| FileError::Write {
        path: path.into(),
        source,
    })
}

fn write_and_rename(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    // A file of this name is left of a crashed process that had our id.
    drop(fs::remove_file(&temporary));
    let result = create_new(&temporary, mode).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder(path))?.sync_all()
    });
    if result.is_err() {
        drop(fs::remove_file(&temporary));
    }
    result
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_file_is_written_for_its_owner_only_and_never_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, b"one", PRIVATE_MODE, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = write(&path, b"two", PRIVATE_MODE, false).unwrap_err();
        assert!(matches!(refused, FileError::Exists { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", PRIVATE_MODE, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "a temporary file is left"
        );
    }

    #[test]
    fn key_readable_by_group_is_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, b"secret", PRIVATE_MODE, false).unwrap();
        assert_eq!(*read_private(&path).unwrap(), b"secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read_private(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("chmod 600 {}", path.display())),
            "{refused}"
        );
        assert!(refused.contains("0640"), "{refused}");
    }
}
