//! Tells a torn tail of the write-ahead log, which is normal after a crash, from damage inside it.
//!
//! SQLite stops reading the log at the first frame whose checksum fails and forgets all after it.
//! That is right for the last transaction, whose sync had not returned; but a flipped bit further
//! up makes it forget transactions that were acknowledged, and with them sequence numbers. Every
//! transaction is synced before the next one starts, so at most one can be torn: if frames after
//! the break end two transactions or more, the log is damaged.
//!
//! A frame after the break is believed when its checksum continues the one stored in the frame
//! before it, so that garbage in what was being written cannot pass for a transaction. A commit
//! pads the log to the disk's sector by writing its last frame once more, which is no transaction.
//!
//! The log's header shares a sector with its first frame, and is written again whenever the log
//! starts over. When it is broken, the newest transactions behind it decide: either a new header
//! was being written, and then the database file holds all of them already, or they are lost.
//!
//! Not detectable here: a flipped bit within the very last transaction, or before it when nothing
//! but it follows. The [`anchor`](crate::anchor) tells those.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Magic number of a log whose checksums read words in little-endian order; with the lowest bit
/// set they are big-endian.
const MAGIC: u32 = 0x377f_0682;
const MAX_PAGE_BYTES: u32 = 65_536;
const MIN_PAGE_BYTES: u32 = 512;

/// A log that has started over so many times since a frame was written will hardly still hold it;
/// small against all numbers, so that garbage is not taken for a generation.
const MAX_GENERATIONS: u32 = 1 << 16;

/// What stands in a write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// No log, or an empty one: the last close was clean.
    Absent,
    /// A log that SQLite recovers without losing an acknowledged transaction, as far as the log
    /// itself tells.
    Sound,
    /// Transactions follow a broken frame; the frame's number, counted from 1, is given.
    Damaged {
        /// 0 stands for the log's own header.
        frame: u64,
    },
}

/// Two running sums.
type Sum = (u32, u32);

/// Reads the log at `path` from start to end. No writer may have it open. `database` is the file
/// that it belongs to.
pub(crate) fn inspect(path: &Path, database: &Path) -> io::Result<Log> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 16, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Log::Absent),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    match fill(&mut file, &mut header)? {
        0 => return Ok(Log::Absent),
        HEADER_BYTES => {}
        // The header is synced before the first frame, so a torn header has nothing after it.
        _ => return Ok(Log::Sound),
    }
    let page_bytes = word(&header, 8);
    let big_endian = word(&header, 0) & 1 == 1;
    let sum = checksum((0, 0), &header[..24], big_endian);
    let sound = word(&header, 0) & !1 == MAGIC
        && is_page_size(page_bytes)
        && sum == (word(&header, 24), word(&header, 28));
    if !sound {
        return behind_a_broken_header(&mut file, database);
    }

    let salts = &header[16..24];
    let mut chain = Some(sum);
    let mut broken_at = 0;
    let mut before = sum;
    let mut after_break = Transactions::default();
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    for number in 1.. {
        if fill(&mut file, &mut frame)? < frame.len() {
            break;
        }
        // Frames of an earlier generation of the log carry other salts, and are never read again.
        let current = &frame[8..16] == salts;
        let stored = stored_sum(&frame);
        match chain {
            Some(sum) if current && frame_sum(sum, &frame, big_endian) == stored => chain = Some(stored),
            Some(_) => {
                chain = None;
                broken_at = number;
            }
            None if current && frame_sum(before, &frame, big_endian) == stored => {
                after_break.take(number, &frame);
            }
            None => {}
        }
        before = stored;
    }
    Ok(if after_break.ended >= 2 {
        Log::Damaged { frame: broken_at }
    } else {
        Log::Sound
    })
}

/// Counts the transactions that frames end.
#[derive(Default)]
struct Transactions {
    ended: u64,
    /// Number and page of the last frame, when it ended a transaction and is not its padding.
    last: Option<(u64, u32)>,
}

impl Transactions {
    /// Takes the next believed frame; whether it ends a transaction that no frame has ended before.
    fn take(&mut self, number: u64, frame: &[u8]) -> bool {
        let ends = word(frame, 4) != 0;
        let page = word(frame, 0);
        let is_padding = ends && self.last == Some((number - 1, page));
        self.last = (ends && !is_padding).then_some((number, page));
        self.ended += u64::from(self.last.is_some());
        self.last.is_some()
    }
}

/// The frames of one generation of a log.
#[derive(Default)]
struct Generation {
    transactions: Transactions,
    /// Pages of the transaction that has not ended yet, and the number of the frame that holds each.
    open: HashMap<u32, u64>,
    /// The same of those that have ended.
    ended: HashMap<u32, u64>,
    /// Pages of the database after the last of them.
    database_pages: u32,
}

/// Whether transactions behind a header that tells nothing are lost with it. A new header is only
/// written once the database file holds everything that the log held.
fn behind_a_broken_header(log: &mut (impl Read + Seek), database: &Path) -> io::Result<Log> {
    let mut database = match File::open(database) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Log::Sound),
        Err(error) => return Err(error),
    };
    let mut header = [0; 18];
    // A database that cannot be read is refused by SQLite.
    if fill(&mut database, &mut header)? < header.len() {
        return Ok(Log::Sound);
    }
    let page_bytes = match u32::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => MAX_PAGE_BYTES,
        bytes => bytes,
    };
    if !is_page_size(page_bytes) {
        return Ok(Log::Sound);
    }
    let Some(generation) = newest_generation(log, page_bytes)? else {
        return Ok(Log::Sound);
    };
    // One transaction may be the very first behind the header, and torn together with it.
    if generation.transactions.ended < 2 {
        return Ok(Log::Sound);
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let mut page = vec![0; page_bytes as usize];
    for (number, at) in generation.ended {
        if number > generation.database_pages {
            continue;
        }
        log.seek(SeekFrom::Start(
            HEADER_BYTES as u64 + (at - 1) * frame.len() as u64,
        ))?;
        database.seek(SeekFrom::Start(u64::from(number - 1) * u64::from(page_bytes)))?;
        let whole = fill(log, &mut frame)? == frame.len() && fill(&mut database, &mut page)? == page.len();
        if !whole || frame[FRAME_HEADER_BYTES..] != page {
            return Ok(Log::Damaged { frame: 0 });
        }
    }
    Ok(Log::Sound)
}

/// The generation that was begun last, of all that have left frames behind the header. Each has
/// the first salt of the one before it, plus one. `None` when none has left whole frames, or when
/// broken ones tell of a newer one: all that came before it is in the database file.
fn newest_generation(log: &mut impl Read, page_bytes: u32) -> io::Result<Option<Generation>> {
    let mut generations = HashMap::<[u8; 8], Generation>::new();
    // SQLite writes sums in the machine's order.
    let big_endian = cfg!(target_endian = "big");
    let mut before = None;
    let mut first_salts = HashSet::new();
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    for number in 1.. {
        if fill(log, &mut frame)? < frame.len() {
            break;
        }
        let stored = stored_sum(&frame);
        let page = word(&frame, 0);
        first_salts.insert(word(&frame, 8));
        if page != 0 && before.is_some_and(|before| frame_sum(before, &frame, big_endian) == stored) {
            let salts = *frame[8..].first_chunk().expect("a frame's header has 24 bytes");
            let generation = generations.entry(salts).or_default();
            generation.open.insert(page, number);
            if generation.transactions.take(number, &frame) {
                generation.ended.extend(generation.open.drain());
                generation.database_pages = word(&frame, 4);
            }
        }
        before = Some(stored);
    }
    let newer = |one: &[u8; 8], other: &[u8; 8]| word(one, 0).wrapping_sub(word(other, 0)) < 1 << 31;
    let newest = generations
        .into_iter()
        .reduce(|one, other| if newer(&one.0, &other.0) { one } else { other });
    Ok(newest
        .filter(|(salts, _)| {
            let steps = |salt: &u32| salt.wrapping_sub(word(salts, 0));
            !first_salts
                .iter()
                .any(|salt| (1..=MAX_GENERATIONS).contains(&steps(salt)))
        })
        .map(|(_, generation)| generation))
}

const fn is_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes >= MIN_PAGE_BYTES && bytes <= MAX_PAGE_BYTES
}

/// Reads until `buffer` is full or the file ends; how many bytes were read.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The sum that a frame carries.
fn stored_sum(frame: &[u8]) -> Sum {
    (word(frame, 16), word(frame, 20))
}

/// The sum that a frame should carry, after the one before it.
fn frame_sum(before: Sum, frame: &[u8], big_endian: bool) -> Sum {
    let sum = checksum(before, &frame[..8], big_endian);
    checksum(sum, &frame[FRAME_HEADER_BYTES..], big_endian)
}

/// The format's cumulative checksum over pairs of 32-bit words.
fn checksum((mut first, mut second): Sum, bytes: &[u8], big_endian: bool) -> Sum {
    for pair in bytes.chunks_exact(8) {
        let (mut a, mut b) = (word(pair, 0), word(pair, 4));
        if !big_endian {
            (a, b) = (a.swap_bytes(), b.swap_bytes());
        }
        first = first.wrapping_add(a).wrapping_add(second);
        second = second.wrapping_add(b).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const PAGE_BYTES: usize = 4096;
    const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_BYTES;

    /// A log of `transactions` transactions of two frames each, as left behind by a crash.
    fn log_of(transactions: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; CREATE TABLE t (x); CREATE TABLE u (x);
                            PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0",
            )
            .unwrap();
        for _ in 0..transactions {
            connection
                .execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (2); COMMIT")
                .unwrap();
        }
        let log = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        assert_eq!(log.len(), HEADER_BYTES + 2 * transactions * FRAME_BYTES);
        log
    }

    /// What the log is taken for beside a database of these bytes.
    fn inspected_beside(log: &[u8], database: &[u8]) -> Log {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, database).unwrap();
        std::fs::write(folder.path().join("a.db-wal"), log).unwrap();
        inspect(&folder.path().join("a.db-wal"), &path).unwrap()
    }

    fn inspected(log: &[u8]) -> Log {
        // Nothing of the log is in it: its pages were never written back.
        let mut database = vec![0; 100];
        database[16..18].copy_from_slice(&(PAGE_BYTES as u16).to_be_bytes());
        inspected_beside(log, &database)
    }

    #[test]
    fn whole_and_absent_logs_are_told_apart() {
        assert_eq!(inspected(&log_of(4)), Log::Sound);
        assert_eq!(inspected(&[]), Log::Absent);
        assert_eq!(
            inspect(Path::new("/nowhere/a.db-wal"), Path::new("/nowhere/a.db")).unwrap(),
            Log::Absent
        );
    }

    #[test]
    fn torn_last_transaction_is_sound() {
        let log = log_of(4);
        for cut in [
            log.len() - 1,
            log.len() - FRAME_BYTES,
            log.len() - FRAME_BYTES - 1,
            40,
            7,
        ] {
            assert_eq!(inspected(&log[..cut]), Log::Sound, "cut at {cut}");
        }
        let mut flipped = log;
        let first_frame_of_last = HEADER_BYTES + 6 * FRAME_BYTES;
        flipped[first_frame_of_last + 100] ^= 1;
        assert_eq!(inspected(&flipped), Log::Sound);
    }

    #[test]
    fn flipped_bit_before_the_last_two_transactions_is_damage() {
        let log = log_of(4);
        for frame in 0..5 {
            let mut flipped = log.clone();
            flipped[HEADER_BYTES + frame * FRAME_BYTES + 2_000] ^= 0x10;
            let number = frame as u64 + 1;
            assert_eq!(inspected(&flipped), Log::Damaged { frame: number });
        }
        // The frame that ends the last but one: only the last follows.
        let mut flipped = log.clone();
        flipped[HEADER_BYTES + 5 * FRAME_BYTES + 2_000] ^= 0x10;
        assert_eq!(inspected(&flipped), Log::Sound);
        let mut flipped = log;
        flipped[12] ^= 1;
        assert_eq!(inspected(&flipped), Log::Damaged { frame: 0 });
    }

    #[test]
    fn frames_that_only_look_like_the_end_of_a_transaction_are_not_believed() {
        let mut log = log_of(4);
        // The last transaction is torn, and its first frame seems to end one too.
        let torn = HEADER_BYTES + 6 * FRAME_BYTES;
        log[torn + 7] = 9;
        assert_eq!(inspected(&log), Log::Sound);
        assert_eq!(word(&log, torn + 4), 9);
    }

    #[test]
    fn padding_is_no_transaction() {
        let log = log_of(4);
        let frame = |at: usize| &log[HEADER_BYTES + at * FRAME_BYTES..][..FRAME_BYTES];
        let mut transactions = Transactions::default();
        assert!(!transactions.take(1, frame(0)));
        assert!(transactions.take(2, frame(1)));
        assert!(!transactions.take(3, frame(1)), "the same frame again");
        assert!(transactions.take(4, frame(1)), "and a transaction of one page");
        assert!(transactions.take(6, frame(1)));
        assert_eq!(transactions.ended, 3);
    }

    #[test]
    fn broken_header_is_sound_when_the_database_holds_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE t (x); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)",
            )
            .unwrap();
        let mut log = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        let before = std::fs::read(&path).unwrap();
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(inspected_beside(&log, &before), Log::Sound);
        log[..HEADER_BYTES].fill(0);
        assert_eq!(inspected_beside(&log, &after), Log::Sound);
        assert_eq!(inspected_beside(&log, &before), Log::Damaged { frame: 0 });
        // Frames of a newer generation, broken with its header: what follows is older than the database.
        let mut newer = log.clone();
        newer[HEADER_BYTES + FRAME_BYTES + 11] += 1;
        newer[HEADER_BYTES + FRAME_BYTES + 100] ^= 1;
        assert_eq!(inspected_beside(&newer, &before), Log::Sound);
        // A new header alone, torn: nothing is behind it.
        assert_eq!(inspected_beside(&log[..HEADER_BYTES], &before), Log::Sound);
    }
}
