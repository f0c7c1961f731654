//! One scenario: a worker's changes recorded, and the power cut at many moments of them; then, on
//! what some of the cuts have left, a worker that goes on, and cuts of that.

use super::check::{self, Verdict};
use super::counts::Counts;
use super::damage::{self, Damage};
use super::devices::Devices;
use super::disk::{Cut, Disk, Image};
use super::known::{Extent, Known};
use super::marks::Mark;
use super::record::{Change, Fate, Record, Recorder};
use super::worker::{DATABASE, Work};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_store::error::StoreError;

/// Cuts of cuts of cuts.
const GENERATIONS: u32 = 3;
/// Cuts of one generation's record.
const CUTS_PER_RECORD: u64 = 60;
/// One cut in so many goes on with a new message.
const GOES_ON: u32 = 8;

/// What one scenario is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) cuts: u64,
    /// Trials of other damage.
    pub(super) damages: u64,
    /// A log of many megabytes.
    pub(super) long: bool,
}

/// Runs scenarios in a folder of its own.
pub(super) struct Campaign<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) devices: &'a Devices,
    pub(super) folder: PathBuf,
    /// A database of an earlier scenario.
    pub(super) foreign: Image,
    /// Called after each cut; `false` ends.
    pub(super) proceed: &'a dyn Fn() -> bool,
}

/// A record that is cut, and what is known before its first change.
struct Stretch {
    changes: Vec<Change>,
    data: Arc<[u8]>,
    base: Image,
    known: Known,
    generation: u32,
}

impl Campaign<'_> {
    pub(super) fn run(&mut self, plan: Plan, counts: &mut Counts) -> Result<()> {
        let mut random = StdRng::seed_from_u64(plan.seed);
        let folder = self.folder.join("live");
        check::write(&folder, &Image::new())?;
        let mut record = Record::default();
        let fails = random.random_range(0..6) == 0;
        for leg in 0..random.random_range(1..=3) {
            let fate = Fate {
                failing_syncs: if fails {
                    failing_syncs(&mut random)
                } else {
                    Vec::new()
                },
                killed_at: killed_at(&mut random),
            };
            counts.failing_syncs += fate.failing_syncs.len() as u64;
            counts.kills += u64::from(fate.killed_at.is_some());
            let work = work(plan, leg, &mut random);
            self.recorder.run(&folder, work, &fate, &mut record)?;
        }
        counts.scenarios += 1;
        let stretch = self.stretch(record, Image::new(), Known::default(), 1, counts)?;
        self.sweep(&stretch, plan.cuts, plan.damages, plan.seed, &mut random, counts)
    }

    /// Turns a record into something to be cut, and makes sure that nothing escaped the recorder.
    fn stretch(
        &self,
        record: Record,
        base: Image,
        known: Known,
        generation: u32,
        counts: &mut Counts,
    ) -> Result<Stretch> {
        counts.log_started_over += record.started_over(&format!("{DATABASE}-wal"));
        let (changes, data) = record.into_parts();
        let mut disk = Disk::new(&base, Arc::clone(&data));
        for change in &changes {
            disk.apply(change);
        }
        for (name, bytes) in disk.live() {
            let path = self.folder.join("live").join(&name);
            let real = std::fs::read(&path).with_context(|| format!("the record has a file {name}"))?;
            ensure!(
                real == bytes,
                "the record of {name} is not what the worker has done"
            );
        }
        Ok(Stretch {
            changes,
            data,
            base,
            known,
            generation,
        })
    }

    fn sweep(
        &mut self,
        stretch: &Stretch,
        cuts: u64,
        damages: u64,
        seed: u64,
        random: &mut StdRng,
        counts: &mut Counts,
    ) -> Result<()> {
        // What is cut again comes out of the same number.
        let further = if stretch.generation < GENERATIONS {
            cuts * 2 / 5
        } else {
            0
        };
        let own = cuts - further;
        let records = further.div_ceil(CUTS_PER_RECORD);
        let moments = |random: &mut StdRng, number: u64| -> Vec<usize> {
            (0..number)
                .map(|_| random.random_range(0..=stretch.changes.len()))
                .collect()
        };
        // Moment, and whether it is one of damage.
        let mut plan: Vec<(usize, bool)> = moments(random, own).into_iter().map(|at| (at, false)).collect();
        plan.extend(moments(random, damages).into_iter().map(|at| (at, true)));
        plan.sort_unstable();

        let mut disk = Disk::new(&stretch.base, Arc::clone(&stretch.data));
        let mut known = stretch.known.clone();
        let mut opened = false;
        let mut at = 0;
        let mut earlier = Image::new();
        let mut seeds = Vec::new();
        let mut cuts_left = own;
        for (moment, is_damage) in plan {
            for change in &stretch.changes[at..moment] {
                disk.apply(change);
                at += 1;
                if let Change::Said(mark) = change {
                    opened |= matches!(mark, Mark::Opened { .. });
                    if let Mark::Replayed { refused, accepted } = mark {
                        counts.replays_refused += refused;
                        if *accepted > 0 {
                            counts.violation(format!("seed {seed}: {accepted} replays accepted by a worker"));
                        }
                    }
                    let later = stretch.changes[at..].iter().filter_map(|change| match change {
                        Change::Said(mark) => Some(mark),
                        _ => None,
                    });
                    known.hear(mark, later);
                }
            }
            if !(self.proceed)() {
                return Ok(());
            }
            // Before the database is made nothing was promised of it.
            if is_damage && (opened || stretch.generation > 1) {
                self.damage(&disk.live(), &mut earlier, &known, seed, at, random, counts)?;
            }
            if is_damage {
                continue;
            }
            let in_recovery = stretch.generation > 1 && !opened;
            let cut = Cut::random(random);
            let survivor = self.cut(
                &disk,
                &cut,
                &known,
                (seed, at),
                stretch.generation,
                in_recovery,
                random,
                counts,
            )?;
            let wanted = records - seeds.len() as u64;
            if let Some(survivor) = survivor
                && wanted > 0
                && (wanted >= cuts_left || random.random_range(0..cuts_left) < wanted)
            {
                seeds.push(survivor);
            }
            cuts_left -= 1;
        }
        if !disk.live().is_empty() {
            self.foreign = disk.live();
        }
        let number = seeds.len() as u64;
        for (place, (image, known)) in (0..).zip(seeds) {
            // Spread evenly.
            let cuts = further * (place + 1) / number - further * place / number;
            self.go_on(image, known, stretch.generation + 1, cuts, seed, random, counts)?;
        }
        Ok(())
    }

    /// Cuts the power once. Gives what is left, when it holds what it should.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one trial, and used once"
    )]
    fn cut(
        &self,
        disk: &Disk,
        cut: &Cut,
        known: &Known,
        (seed, at): (u64, usize),
        generation: u32,
        in_recovery: bool,
        random: &mut StdRng,
        counts: &mut Counts,
    ) -> Result<Option<(Image, Known)>> {
        let (image, harm) = disk.cut(cut, random);
        counts.cut(cut, &harm, generation, in_recovery);
        let folder = self.folder.join("cut");
        check::write(&folder, &image)?;
        if random.random_range(0..4) == 0 {
            check::leave_shared_memory(&folder, random)?;
        }
        let goes_on =
            (random.random_range(0..GOES_ON) == 0).then(|| random.random_range(0..super::devices::DEVICES));
        let wrong = match check::check(&folder, self.devices, known, Extent::Everything, goes_on) {
            Verdict::Holds(held) => {
                counts.held(&held);
                return Ok(Some((image, held.known)));
            }
            Verdict::Refused { error, .. } => describe(&error),
            Verdict::Wrong(wrong) => wrong,
        };
        counts.violation(format!(
            "seed {seed}, generation {generation}, after change {at}, {cut:?}: {wrong}"
        ));
        if let Some(kept) = std::env::var_os("TIDEGATE_KEEP") {
            check::write(Path::new(&kept), &image)?;
        }
        Ok(None)
    }

    /// A worker goes on with what a cut has left; and then its power is cut.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one trial, and used once"
    )]
    fn go_on(
        &mut self,
        image: Image,
        known: Known,
        generation: u32,
        cuts: u64,
        seed: u64,
        random: &mut StdRng,
        counts: &mut Counts,
    ) -> Result<()> {
        let folder = self.folder.join("live");
        check::write(&folder, &image)?;
        let mut record = Record::over(&image);
        let work = Work {
            seed: random.random(),
            commits: random.random_range(1..=12),
            batch: 12,
            prunes: random.random_range(0..4) == 0,
            prunes_beside: false,
        };
        let fate = Fate {
            killed_at: killed_at(random),
            ..Fate::default()
        };
        counts.kills += u64::from(fate.killed_at.is_some());
        self.recorder.run(&folder, work, &fate, &mut record)?;
        let stretch = self.stretch(record, image, known, generation, counts)?;
        self.sweep(&stretch, cuts, 0, seed, random, counts)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one trial, and used once"
    )]
    fn damage(
        &self,
        live: &Image,
        earlier: &mut Image,
        known: &Known,
        seed: u64,
        at: usize,
        random: &mut StdRng,
        counts: &mut Counts,
    ) -> Result<()> {
        let kind = Damage::ALL[random.random_range(0..Damage::ALL.len())];
        let folder = self.folder.join("damage");
        let image = if kind.needs_settled() || random.random_range(0..3) == 0 {
            // Before the database is made there is nothing to settle.
            match damage::settled(live, &folder) {
                Ok(image) => image,
                Err(_) => live.clone(),
            }
        } else {
            live.clone()
        };
        let before = earlier.clone();
        if random.random_range(0..3) == 0 || earlier.is_empty() {
            *earlier = image.clone();
        }
        let Ok(Some(damaged)) = kind.apply(image, &before, &self.foreign, &folder, random) else {
            counts.damage_without_object += 1;
            return Ok(());
        };
        check::write(&folder, &damaged)?;
        let verdict = check::check(&folder, self.devices, known, Extent::Promised, None);
        if let Verdict::Wrong(wrong) = &verdict
            && let Some(kept) = std::env::var_os("TIDEGATE_KEEP")
        {
            check::write(Path::new(&kept), &damaged)?;
            eprintln_debug(wrong);
        }
        counts.damaged(kind, verdict, &format!("seed {seed}, after change {at}"));
        Ok(())
    }
}

fn eprintln_debug(text: &str) {
    anstream::eprintln!("{text}");
}

/// When a worker is killed, if it is.
fn killed_at(random: &mut StdRng) -> Option<u32> {
    let most = [12, 60, 1_500][random.random_range(0..3)];
    (random.random_range(0..3) == 0).then(|| random.random_range(1..most))
}

/// Which syncs of a worker fail.
fn failing_syncs(random: &mut StdRng) -> Vec<u32> {
    let mut number = random.random_range(1..60);
    let mut failing = Vec::new();
    for _ in 0..random.random_range(1..=6) {
        failing.push(number);
        // Often several in a row, as a failing disk has it.
        number += if random.random_range(0..2) == 0 {
            1
        } else {
            random.random_range(1..25)
        };
    }
    failing
}

fn work(plan: Plan, leg: u32, random: &mut StdRng) -> Work {
    let prunes_beside = !plan.long && random.random_range(0..6) == 0;
    Work {
        seed: random.random(),
        commits: if plan.long {
            60
        } else {
            random.random_range(2..=40)
        },
        batch: if plan.long {
            4_000
        } else {
            [8, 30, 90][random.random_range(0..3)]
        },
        prunes: plan.long || (!prunes_beside && leg > 0 && random.random_range(0..2) == 0),
        prunes_beside,
    }
}

/// An error with its causes.
pub(super) fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
