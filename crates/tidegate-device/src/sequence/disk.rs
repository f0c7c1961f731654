//! The steps by which the sequence state reaches a disk, so that other storage can take its place.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tidegate_pki::files::PRIVATE_MODE;

/// What [`SequenceFile`](super::SequenceFile) asks of a disk: whole files, and a way to wait until
/// they are safe.
///
/// Until [`Disk::sync_file`] has returned, a power cut may leave any part of a file's bytes; until
/// [`Disk::sync_names`] has, a name may lead to the file before. A disk that says that bytes are
/// safe when they are not lets sequence numbers be used twice.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The first `limit` bytes of a file; `None` when there is no such name.
    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>>;

    /// Makes a new file with these bytes. An older one of the name is removed first.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the bytes of the file that was written last are safe.
    fn sync_file(&mut self) -> io::Result<()>;

    /// Gives a file another name, in place of the file that had it.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the names beside this one are safe.
    fn sync_names(&mut self, path: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Kept open, because a sync reports what went wrong only to a file that was open then.
    written: Option<File>,
}

impl Disk for Files {
    fn read(&mut self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.written = None;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_MODE)
            .open(path)?;
        file.write_all(bytes)?;
        self.written = Some(file);
        Ok(())
    }

    fn sync_file(&mut self) -> io::Result<()> {
        match self.written.take() {
            Some(file) => file.sync_all(),
            None => Err(io::Error::other("no file was written")),
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_names(&mut self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}
