//! Tells a torn tail of the write-ahead log, which is normal after a crash, from damage inside it.
//!
//! SQLite stops reading the log at the first frame whose checksum fails and forgets all after it.
//! That is right for the last transaction, whose sync had not returned; but a flipped bit further
//! up makes it forget transactions that were acknowledged, and with them sequence numbers. Every
//! transaction is synced before the next one starts, so at most one can be torn: if frames after
//! the break end two transactions or more, the log is damaged.
//!
//! Not detectable so: a flipped bit within the very last transaction.
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Magic number of a log whose checksums read words in little-endian order; with the lowest bit
/// set they are big-endian.
const MAGIC: u32 = 0x377f_0682;
const MAX_PAGE_BYTES: u32 = 65_536;

/// What stands in a write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// No log, or an empty one: the last close was clean.
    Absent,
    /// A log that SQLite recovers without losing an acknowledged transaction.
    Sound,
    /// Transactions follow a broken frame; the frame's number, counted from 1, is given.
    Damaged {
        /// 0 stands for the log's own header.
        frame: u64,
    },
}

/// Reads the log at `path` from start to end. No writer may have it open.
pub(crate) fn inspect(path: &Path) -> io::Result<Log> {
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
    if word(&header, 0) & !1 != MAGIC || !page_bytes.is_power_of_two() || page_bytes > MAX_PAGE_BYTES {
        return Ok(Log::Damaged { frame: 0 });
    }
    let big_endian = word(&header, 0) & 1 == 1;
    let salts = &header[16..24];

    let mut sum = checksum((0, 0), &header[..24], big_endian);
    let mut broken_at = (sum != (word(&header, 24), word(&header, 28))).then_some(0);
    let mut commits_after_break = 0;
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    for number in 1.. {
        if fill(&mut file, &mut frame)? < frame.len() {
            break;
        }
        // Frames of an earlier generation of the log carry other salts, and are never read again.
        let current = &frame[8..16] == salts;
        if broken_at.is_none() {
            sum = checksum(sum, &frame[..8], big_endian);
            sum = checksum(sum, &frame[FRAME_HEADER_BYTES..], big_endian);
            if !current || sum != (word(&frame, 16), word(&frame, 20)) {
                broken_at = Some(number);
            }
        }
        let ends_transaction = word(&frame, 4) != 0;
        if broken_at.is_some() && current && ends_transaction {
            commits_after_break += 1;
        }
    }
    Ok(match broken_at {
        Some(frame) if commits_after_break >= 2 => Log::Damaged { frame },
        _ => Log::Sound,
    })
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

/// The format's cumulative checksum over pairs of 32-bit words.
fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
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

    fn inspected(log: &[u8]) -> Log {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        inspect(file.path()).unwrap()
    }

    #[test]
    fn whole_and_absent_logs_are_told_apart() {
        assert_eq!(inspected(&log_of(4)), Log::Sound);
        assert_eq!(inspected(&[]), Log::Absent);
        assert_eq!(inspect(Path::new("/nowhere/a.db-wal")).unwrap(), Log::Absent);
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
    fn flipped_bit_before_the_last_transaction_is_damage() {
        let log = log_of(4);
        for frame in 0..6 {
            let mut flipped = log.clone();
            flipped[HEADER_BYTES + frame * FRAME_BYTES + 2_000] ^= 0x10;
            let number = frame as u64 + 1;
            assert_eq!(inspected(&flipped), Log::Damaged { frame: number });
        }
        let mut flipped = log;
        flipped[12] ^= 1;
        assert_eq!(inspected(&flipped), Log::Damaged { frame: 0 });
    }
}
