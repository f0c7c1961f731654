//! What all lives of the publisher used, and what must never be found in it.

use super::child::TOLD_BYTES;
use super::wire::Sent;
use super::{MAX_FILES, writes_allowed};
use crate::report::Running;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use tidegate_device::sequence::BLOCK;

/// Violations that are kept in words; all are counted.
const MAX_WORDS: usize = 20;

/// The publisher's state as it lies on the disk, read without its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    boot: u32,
    reserved: u64,
}

impl State {
    /// `None` where no life has got so far as to write one.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let number = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        let read = || {
            Some(Self {
                boot: u32::try_from(number("boot ")?).ok()?,
                reserved: number("reserved ")?,
            })
        };
        read()
            .map(Some)
            .with_context(|| format!("{} is damaged: {text:?}", path.display()))
    }
}

/// One life, from its start to its kill.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// What came through the pipe.
    pub(super) told: Vec<u8>,
    /// What the broker received meanwhile, of this life or the end of an earlier one.
    pub(super) sent: Vec<Sent>,
    /// What it said if it ended by itself, or that it hung.
    pub(super) failed: Option<String>,
    /// What it left on the disk.
    pub(super) state: Option<State>,
    /// Files in its folder afterwards.
    pub(super) files: usize,
    /// Whether a half-made state is among them.
    pub(super) torn: bool,
}

/// All lives so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lives: u64,
    /// Lives that were killed before their first number.
    mute: u64,
    /// Kills that left a half-made state behind.
    torn: u64,
    most_files: usize,
    numbers: u64,
    highest: u64,
    writes: u64,
    /// What the last life left.
    last: State,
    /// Numbers that each boot told.
    told: BTreeMap<u32, RangeInclusive<u64>>,
    /// The last number of each boot that came out of a socket.
    received: BTreeMap<u32, u64>,
    sent: u64,
    violations: u64,
    words: Vec<String>,
}

impl Ledger {
    /// Enters one life, and compares it with all before.
    pub(super) fn enter(&mut self, life: Life) {
        self.lives += 1;
        let run = self.lives;
        if let Some(said) = &life.failed {
            self.violated(format!("start {run} failed: {said}"));
        }
        let (records, rest) = life.told.as_chunks::<TOLD_BYTES>();
        if !rest.is_empty() {
            self.violated(format!("life {run} told half a number"));
        }
        let state = life.state.unwrap_or_default();
        if let [first, ..] = records {
            self.numbers(run, state, first, records);
        } else {
            self.mute += 1;
        }
        self.disk(run, state, records.len() as u64);
        self.torn += u64::from(life.torn);
        self.most_files = self.most_files.max(life.files);
        if life.files > MAX_FILES {
            let files = life.files;
            self.violated(format!("{files} files lie in the folder after life {run}"));
        }
        self.receive(life.sent);
    }

    /// Enters what the broker read after its publisher's death.
    pub(super) fn enter_late(&mut self, sent: Vec<Sent>) {
        self.receive(sent);
    }

    /// Every number is above every earlier one of any life, and reserved on the disk.
    fn numbers(&mut self, run: u64, state: State, first: &[u8; TOLD_BYTES], records: &[[u8; TOLD_BYTES]]) {
        let (boot, first_number) = parts(first);
        if self.told.last_key_value().is_some_and(|(last, _)| *last >= boot) {
            self.violated(format!(
                "life {run} has boot {boot}, which is not above all before"
            ));
        }
        for record in records {
            let (own, number) = parts(record);
            if own != boot {
                self.violated(format!("life {run} has the boots {boot} and {own}"));
            }
            if number <= self.highest {
                let highest = self.highest;
                self.violated(format!("life {run} used {number} after {highest}"));
            }
            self.highest = self.highest.max(number);
        }
        self.numbers += records.len() as u64;
        self.told.insert(boot, first_number..=self.highest);
        if state.boot != boot || state.reserved < self.highest {
            let highest = self.highest;
            self.violated(format!(
                "life {run} used {highest} in boot {boot}, and the disk has {state:?}"
            ));
        }
    }

    /// The disk went forward, by no more writes than `numbers` allow.
    fn disk(&mut self, run: u64, state: State, numbers: u64) {
        let last = self.last;
        if state.boot < last.boot || state.reserved < last.reserved {
            self.violated(format!("life {run} left {state:?} where {last:?} was"));
            return;
        }
        let writes = (state.reserved - last.reserved).div_ceil(BLOCK);
        if writes > writes_allowed(numbers) {
            self.violated(format!("life {run} wrote {writes} times for {numbers} numbers"));
        }
        self.writes += writes;
        self.last = state;
    }

    /// What comes out of a socket rises within its boot, and was told.
    fn receive(&mut self, sent: Vec<Sent>) {
        for (boot, number) in sent {
            self.sent += 1;
            let last = self.received.insert(boot, number);
            if last.is_some_and(|last| last >= number) {
                self.violated(format!("boot {boot} sent {number} after {last:?}"));
            }
            if !self.told.get(&boot).is_some_and(|told| told.contains(&number)) {
                self.violated(format!("boot {boot} sent {number}, which is not its own"));
            }
        }
    }

    fn violated(&mut self, what: String) {
        self.violations += 1;
        if self.words.len() < MAX_WORDS {
            self.words.push(what);
        }
    }

    /// For the progress bar.
    pub(super) fn summary(&self) -> String {
        format!("{} numbers, {} violations", self.numbers, self.violations)
    }

    pub(super) fn report(self, report: &mut Running) {
        report.count("publishers killed", self.lives);
        report.count("of these before their first number", self.mute);
        report.count("of these that left a half-made write behind", self.torn);
        report.count("starts counted on the disk", self.last.boot.into());
        report.count("numbers used", self.numbers);
        report.count("of these received by a broker", self.sent);
        report.count(
            "numbers used twice, starts or writes out of order",
            self.violations,
        );
        report.count("writes of the state", self.writes);
        report.count("most files in the folder at any time", self.most_files as u64);
        for words in self.words {
            report.violation(words);
        }
    }
}

/// Boot and number.
fn parts(record: &[u8; TOLD_BYTES]) -> (u32, u64) {
    let [b0, b1, b2, b3, number @ ..] = *record;
    (u32::from_be_bytes([b0, b1, b2, b3]), u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life that told these numbers in this boot and left this much reserved.
    fn life(boot: u32, numbers: RangeInclusive<u64>, reserved: u64) -> Life {
        let told = numbers.flat_map(|number| {
            let mut record = boot.to_be_bytes().to_vec();
            record.extend(number.to_be_bytes());
            record
        });
        Life {
            told: told.collect(),
            state: Some(State { boot, reserved }),
            files: MAX_FILES,
            ..Life::default()
        }
    }

    fn violations(lives: impl IntoIterator<Item = Life>) -> Vec<String> {
        let mut ledger = Ledger::default();
        for life in lives {
            ledger.enter(life);
        }
        ledger.words
    }

    #[test]
    fn lives_that_keep_the_rules_violate_nothing() {
        let mute = Life {
            told: Vec::new(),
            ..life(3, 1..=1, 4 * BLOCK)
        };
        let sent = Life {
            sent: vec![(4, 4 * BLOCK + 1), (4, 4 * BLOCK + 2)],
            ..life(4, 4 * BLOCK + 1..=4 * BLOCK + 2, 5 * BLOCK)
        };
        let kept = [
            Life::default(),
            life(1, 1..=BLOCK + 1, 2 * BLOCK),
            life(2, 2 * BLOCK + 1..=2 * BLOCK + 1, 3 * BLOCK),
            mute,
            sent,
        ];
        assert_eq!(violations(kept), [""; 0]);
    }

    #[test]
    fn every_broken_rule_is_a_violation() {
        let first = || life(1, 1..=2, BLOCK);
        let second = || life(2, BLOCK + 1..=BLOCK + 1, 2 * BLOCK);
        let broken = [
            ("number twice", life(2, 2..=2, 2 * BLOCK)),
            ("boot twice", life(1, BLOCK + 1..=BLOCK + 1, 2 * BLOCK)),
            ("not reserved", life(2, BLOCK + 1..=BLOCK + 1, BLOCK)),
            ("write too many", life(2, BLOCK + 1..=BLOCK + 1, 3 * BLOCK)),
            (
                "disk gone back",
                Life {
                    state: Some(State { boot: 1, reserved: 0 }),
                    ..Life::default()
                },
            ),
            (
                "file too many",
                Life {
                    files: MAX_FILES + 1,
                    ..second()
                },
            ),
            (
                "failed start",
                Life {
                    failed: Some("damaged".into()),
                    ..second()
                },
            ),
            (
                "sent twice",
                Life {
                    sent: vec![(2, BLOCK + 1), (2, BLOCK + 1)],
                    ..second()
                },
            ),
            (
                "sent in another boot's name",
                Life {
                    sent: vec![(1, BLOCK + 1)],
                    ..second()
                },
            ),
        ];
        assert_eq!(violations([first(), second()]), [""; 0]);
        for (rule, life) in broken {
            assert!(!violations([first(), life]).is_empty(), "{rule}");
        }
    }
}
