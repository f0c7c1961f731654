//! The steps by which a pair reaches the disk, so that a test can cut them off after any of them.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

/// What is done to the disk. Names are safe after [`Disk::sync_names`] of their folder.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder, with all above it; one that exists stays.
    fn make_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Writes a new file and waits until its bytes are safe.
    fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Makes `path` a symbolic link in one step, whatever it was.
    fn link(&mut self, target: &Path, path: &Path) -> io::Result<()>;

    /// Waits until the names in a folder are safe.
    fn sync_names(&mut self, folder: &Path) -> io::Result<()>;

    /// Removes a file or a link, if there is one.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Removes a folder and what is in it.
    fn remove_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct FileSystem;

impl Disk for FileSystem {
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn link(&mut self, target: &Path, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let temporary = path.with_file_name(name);
        self.remove(&temporary)?;
        symlink(target, &temporary)?;
        fs::rename(&temporary, path)
    }

    fn sync_names(&mut self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}
