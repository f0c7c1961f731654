//! kill -9 in the middle of commits: everything acknowledged is there, and belongs together.

use crate::support::{admission, all_readings, at_ms, device, open};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use tidegate_store::event::Outcome;
use tidegate_store::reader::ReadingQuery;
use tidegate_verify::log::ReplayLog;

const DEVICES: u32 = 3;
/// The child process finds its database here.
const DATABASE: &str = "TIDEGATE_CRASH_DATABASE";

/// Commits for ever and says so: each line is a sequence that all devices have reached.
fn commit_for_ever(path: &Path) {
    let mut store = open(path, DEVICES);
    let first = store
        .load()
        .unwrap()
        .devices
        .iter()
        .map(|(_, state)| state.mark().get() + 1)
        .max()
        .unwrap_or(1);
    let mut output = std::io::stdout();
    for sequence in first.. {
        let batch: Vec<_> = (0..DEVICES).map(|index| admission(index, sequence, 0)).collect();
        store.commit(&batch, at_ms(0)).unwrap();
        writeln!(output, "\nacknowledged {sequence}").unwrap();
        output.flush().unwrap();
    }
}

#[test]
fn killed_writer_leaves_every_acknowledged_reading_and_its_state() {
    // This test starts itself as the process that it kills.
    if let Some(path) = std::env::var_os(DATABASE) {
        return commit_for_ever(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    for acknowledgements in [1, 2, 37, 5, 120] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::killed_writer_leaves_every_acknowledged_reading_and_its_state",
                "--nocapture",
            ])
            .env(DATABASE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        let mut last = acknowledged.nth(acknowledgements - 1).unwrap();
        child.kill().unwrap();
        // What it still said before it died counts as well.
        last = acknowledged.last().unwrap_or(last);
        child.wait().unwrap();

        let mut store = open(&path, DEVICES);
        let mut newest = BTreeMap::new();
        let rows = all_readings(&path, &ReadingQuery::default());
        for row in &rows {
            let sequence = row.sequence.unwrap();
            let before = newest.insert(row.device.clone().unwrap(), sequence).unwrap_or(0);
            assert_eq!(sequence, before + 1, "no hole and nothing twice");
        }
        let states = store.load().unwrap().devices;
        assert_eq!(states.len(), DEVICES as usize);
        for (index, state) in states {
            let mark = state.mark().get();
            assert!(mark >= last, "acknowledged {last}, found {mark}");
            assert_eq!(
                newest[&device(index.0 + 1)],
                mark,
                "state and reading belong together"
            );
        }
        assert_eq!(store.totals().of(Outcome::Accepted), rows.len() as u64);
        store.close().unwrap();
    }
}
