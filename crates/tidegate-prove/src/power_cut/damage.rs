//! Damage that no power cut leaves: files altered, cut short, missing, or of another time.
//!
//! Each must be refused with an error that says so, or do no harm.

use super::disk::Image;
use super::worker::DATABASE;
use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rusqlite::Connection;
use std::path::Path;

/// Bytes of a page of the database.
const PAGE: usize = 4_096;

/// One kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Damage {
    LogBit,
    LogCut,
    LogGone,
    LogOlder,
    LogForeign,
    DatabaseBit,
    DatabaseHeaderBit,
    SafetyPageBit,
    DatabasePage,
    DatabaseCut,
    DatabaseGone,
    DatabaseOlder,
    DatabaseForeign,
    StalePage,
    Exchanged,
    CommitsBit,
    CommitsGone,
}

impl Damage {
    pub(super) const ALL: [Self; 17] = [
        Self::LogBit,
        Self::LogCut,
        Self::LogGone,
        Self::LogOlder,
        Self::LogForeign,
        Self::DatabaseBit,
        Self::DatabaseHeaderBit,
        Self::SafetyPageBit,
        Self::DatabasePage,
        Self::DatabaseCut,
        Self::DatabaseGone,
        Self::DatabaseOlder,
        Self::DatabaseForeign,
        Self::StalePage,
        Self::Exchanged,
        Self::CommitsBit,
        Self::CommitsGone,
    ];

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::LogBit => "a bit of the -wal file flipped",
            Self::LogCut => "the -wal file cut short",
            Self::LogGone => "the -wal file missing",
            Self::LogOlder => "an older -wal file beside a newer database",
            Self::LogForeign => "another database's -wal file",
            Self::DatabaseBit => "a bit of the database file flipped",
            Self::DatabaseHeaderBit => "a bit of the database's header flipped",
            Self::SafetyPageBit => "a bit flipped in a page of replay states, marks or devices",
            Self::DatabasePage => "a page of the database overwritten",
            Self::DatabaseCut => "the database file cut short",
            Self::DatabaseGone => "the database file missing",
            Self::DatabaseOlder => "an older database file",
            Self::DatabaseForeign => "another database's file",
            Self::StalePage => "a page of the database as it was earlier",
            Self::Exchanged => "database and -wal file exchanged",
            Self::CommitsBit => "a bit of the -commits file flipped",
            Self::CommitsGone => "the -commits file missing",
        }
    }

    /// Whether it only shows once the log is written back.
    pub(super) const fn needs_settled(self) -> bool {
        matches!(self, Self::SafetyPageBit | Self::StalePage)
    }

    /// Damages `image`; `earlier` is the same database some time before, `foreign` another one.
    /// `None` where there is nothing to damage.
    pub(super) fn apply(
        self,
        mut image: Image,
        earlier: &Image,
        foreign: &Image,
        folder: &Path,
        random: &mut StdRng,
    ) -> Result<Option<Image>> {
        let log = format!("{DATABASE}-wal");
        let commits = format!("{DATABASE}-commits");
        let nonempty = |image: &Image, name: &str| image.get(name).is_some_and(|bytes| !bytes.is_empty());
        let damaged = match self {
            Self::LogBit => flip(image.get_mut(&log), 0, usize::MAX, random),
            Self::LogCut => cut(image.get_mut(&log), random),
            Self::LogGone => nonempty(&image, &log) && image.remove(&log).is_some(),
            Self::LogOlder => replace(&mut image, &log, earlier),
            Self::LogForeign => replace(&mut image, &log, foreign),
            Self::DatabaseBit => flip(image.get_mut(DATABASE), 0, usize::MAX, random),
            Self::DatabaseHeaderBit => flip(image.get_mut(DATABASE), 0, 100, random),
            Self::SafetyPageBit => {
                let pages = safety_pages(&image, folder)?;
                let page = pages[random.random_range(0..pages.len())];
                flip(image.get_mut(DATABASE), (page - 1) * PAGE, page * PAGE, random)
            }
            Self::DatabasePage => overwrite(image.get_mut(DATABASE), random),
            Self::DatabaseCut => cut(image.get_mut(DATABASE), random),
            Self::DatabaseGone => nonempty(&image, DATABASE) && image.remove(DATABASE).is_some(),
            Self::DatabaseOlder => replace(&mut image, DATABASE, earlier),
            Self::DatabaseForeign => replace(&mut image, DATABASE, foreign),
            Self::StalePage => stale(image.get_mut(DATABASE), earlier.get(DATABASE), random),
            Self::Exchanged => {
                let (database, log_bytes) = (image.remove(DATABASE), image.remove(&log));
                let both = database.is_some() && log_bytes.is_some();
                image.extend(log_bytes.map(|bytes| (DATABASE.to_owned(), bytes)));
                image.extend(database.map(|bytes| (log, bytes)));
                both
            }
            Self::CommitsBit => flip(image.get_mut(&commits), 0, usize::MAX, random),
            Self::CommitsGone => image.remove(&commits).is_some(),
        };
        Ok(damaged.then_some(image))
    }
}

/// Flips a bit in a part of the file.
fn flip(bytes: Option<&mut Vec<u8>>, from: usize, to: usize, random: &mut StdRng) -> bool {
    let Some(bytes) = bytes else { return false };
    let to = to.min(bytes.len());
    if from >= to {
        return false;
    }
    bytes[random.random_range(from..to)] ^= 1 << random.random_range(0..8);
    true
}

fn cut(bytes: Option<&mut Vec<u8>>, random: &mut StdRng) -> bool {
    match bytes {
        Some(bytes) if !bytes.is_empty() => {
            bytes.truncate(random.random_range(0..bytes.len()));
            true
        }
        _ => false,
    }
}

fn overwrite(bytes: Option<&mut Vec<u8>>, random: &mut StdRng) -> bool {
    match bytes {
        Some(bytes) if bytes.len() >= PAGE => {
            let page = random.random_range(0..bytes.len() / PAGE);
            let page = &mut bytes[page * PAGE..(page + 1) * PAGE];
            if random.random_range(0..2) == 0 {
                page.fill(0);
            } else {
                random.fill(page);
            }
            true
        }
        _ => false,
    }
}

fn replace(image: &mut Image, name: &str, from: &Image) -> bool {
    match from.get(name) {
        Some(bytes) if !bytes.is_empty() && image.get(name) != Some(bytes) => {
            image.insert(name.to_owned(), bytes.clone());
            true
        }
        _ => false,
    }
}

/// Puts back a page that has changed, other than the first, which carries a counter.
fn stale(bytes: Option<&mut Vec<u8>>, earlier: Option<&Vec<u8>>, random: &mut StdRng) -> bool {
    let (Some(bytes), Some(earlier)) = (bytes, earlier) else {
        return false;
    };
    let both = (bytes.len() / PAGE).min(earlier.len() / PAGE);
    let page = |bytes: &[u8], page: usize| bytes[page * PAGE..(page + 1) * PAGE].to_vec();
    let changed: Vec<_> = (1..both)
        .filter(|at| page(bytes, *at) != page(earlier, *at))
        .collect();
    if changed.is_empty() {
        return false;
    }
    let at = changed[random.random_range(0..changed.len())];
    bytes[at * PAGE..(at + 1) * PAGE].copy_from_slice(&page(earlier, at));
    true
}

/// The same database with its log written back, as after a clean end.
pub(super) fn settled(image: &Image, folder: &Path) -> Result<Image> {
    super::check::write(folder, image)?;
    let path = folder.join(DATABASE);
    let connection = Connection::open(&path)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    let mut settled = image.clone();
    settled.remove(&format!("{DATABASE}-wal"));
    settled.remove(&format!("{DATABASE}-journal"));
    settled.insert(DATABASE.into(), std::fs::read(path)?);
    Ok(settled)
}

/// Numbers of the pages that replay protection stands on, from 1.
fn safety_pages(image: &Image, folder: &Path) -> Result<Vec<usize>> {
    super::check::write(folder, image)?;
    let connection = Connection::open(folder.join(DATABASE))?;
    let sql = "SELECT pageno FROM dbstat WHERE name IN
               ('replay_state', 'marks', 'devices', 'sqlite_autoindex_devices_1')";
    let pages = connection
        .prepare(sql)?
        .query_map([], |row| row.get::<_, u32>(0).map(|page| page as usize))?
        .collect::<rusqlite::Result<Vec<usize>>>()?;
    anyhow::ensure!(!pages.is_empty(), "no page holds a replay state");
    connection
        .close()
        .map_err(|(_, error)| error)
        .context("cannot close")?;
    Ok(pages)
}
