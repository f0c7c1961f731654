//! Waits for files to change, or for SIGHUP.
//!
//! The files are looked at several times a second. Notifications of the file system (inotify) were
//! considered: they do not come over network mounts and bind mounts, get lost when editors and
//! configuration tools replace the folder, and need the same look at start anyway. One `stat` costs
//! a microsecond.

use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

/// Time between two looks. A change is taken at the second look that sees it, so within half a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What tells one state of a file from another, as far as that can be told without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    modified_ns: i128,
    /// Also changes with the mode and the owner, and cannot be set back as the time above can.
    changed_ns: i128,
    bytes: u64,
}

impl Fingerprint {
    /// None where there is no file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let ns = |seconds: i64, part: i64| i128::from(seconds) * 1_000_000_000 + i128::from(part);
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.len(),
        })
    }
}

/// Files by their fingerprints at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    prints: Vec<Option<Fingerprint>>,
}

impl Files {
    /// As they are now. To be called before they are read, so that no change in between is missed.
    pub(crate) fn now(paths: Vec<PathBuf>) -> Self {
        let prints = paths.iter().map(|path| Fingerprint::of(path)).collect();
        Self { paths, prints }
    }

    /// Takes down how they are now; whether that is another state than before.
    pub(crate) fn changed(&mut self) -> bool {
        let now = self.paths.iter().map(|path| Fingerprint::of(path)).collect();
        std::mem::replace(&mut self.prints, now) != self.prints
    }
}

/// Why files are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// One has changed, and all have been quiet since.
    Changed,
    /// By SIGHUP, whether or not anything has changed.
    Asked,
    /// Nothing has changed, but what was refused may be good by now.
    Again,
}

/// Watches some files.
#[derive(Debug)]
pub(crate) struct Watch {
    /// As they were when they were read last.
    tried: Files,
    /// As the last look saw them.
    seen: Files,
    looks: Interval,
    /// Looks until the next try without a change.
    retry_in: Option<u32>,
    hangup: Signal,
}

impl Watch {
    /// Watches for changes after `read`, which was taken before the files in use were read. Must be
    /// called in a tokio runtime.
    pub(crate) fn new(read: Files) -> Result<Self> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            seen: read.clone(),
            tried: read,
            looks,
            retry_in: None,
            hangup: signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?,
        })
    }

    /// Waits until the files are to be read. A call may be given up at any time.
    pub(crate) async fn next(&mut self) -> Cause {
        loop {
            let asked = tokio::select! {
                _ = self.looks.tick() => false,
                _ = self.hangup.recv() => true,
            };
            // A file that is still being written changes from look to look.
            let moving = self.seen.changed();
            let changed = self.seen != self.tried && !moving;
            self.retry_in = self.retry_in.map(|looks| looks.saturating_sub(1));
            let cause = match (changed, asked) {
                (true, _) => Cause::Changed,
                (false, true) => Cause::Asked,
                (false, false) if self.retry_in == Some(0) => Cause::Again,
                (false, false) => continue,
            };
            self.tried = self.seen.clone();
            self.retry_in = None;
            return cause;
        }
    }

    /// Has [`next`](Self::next) return after so many looks, if no other cause comes first.
    pub(crate) fn retry_after(&mut self, looks: u32) {
        self.retry_in = Some(looks.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tokio::time::{Instant, timeout};

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        (folder, path)
    }

    fn watch(path: &Path) -> Watch {
        Watch::new(Files::now(vec![path.into()])).unwrap()
    }

    /// Whether anything is to be read within two looks.
    async fn next(watch: &mut Watch) -> Option<Cause> {
        let patience = 2 * LOOK_EVERY + LOOK_EVERY / 2;
        timeout(patience, watch.next()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn change_is_seen_once_and_quiet_files_are_left_alone() {
        let (_folder, path) = file();
        let mut watch = watch(&path);
        assert_eq!(next(&mut watch).await, None);
        fs::write(&path, "another").unwrap();
        assert_eq!(next(&mut watch).await, Some(Cause::Changed));
        assert_eq!(next(&mut watch).await, None);
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watch).await, Some(Cause::Changed));
        assert_eq!(next(&mut watch).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn change_between_reading_and_watching_is_not_missed() {
        let (_folder, path) = file();
        let read = Files::now(vec![path.clone()]);
        fs::write(&path, "another").unwrap();
        assert_eq!(next(&mut Watch::new(read).unwrap()).await, Some(Cause::Changed));
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_is_still_being_written_is_not_taken() {
        let (_folder, path) = file();
        let mut watch = watch(&path);
        watch.looks.tick().await;
        for length in 1..8 {
            fs::write(&path, "x".repeat(10 + length)).unwrap();
            // One look between two writes.
            assert!(
                timeout(LOOK_EVERY, watch.next()).await.is_err(),
                "taken at {length}"
            );
        }
        assert_eq!(next(&mut watch).await, Some(Cause::Changed));
    }

    #[tokio::test(start_paused = true)]
    async fn mode_alone_is_a_change_since_a_key_may_be_readable_by_its_owner_only_now() {
        let (_folder, path) = file();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut watch = watch(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(next(&mut watch).await, Some(Cause::Changed));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_file_is_tried_again_without_a_change_and_only_when_asked_for() {
        let (_folder, path) = file();
        let mut watch = watch(&path);
        watch.retry_after(8);
        let start = Instant::now();
        assert_eq!(watch.next().await, Cause::Again);
        assert!(start.elapsed() >= 7 * LOOK_EVERY, "{:?}", start.elapsed());
        assert_eq!(next(&mut watch).await, None);
    }
}
