//! One scenario: a worker's changes recorded, and the power cut at many moments of them; then, on
//! what some of the cuts have left, a worker that goes on, and cuts of that.

use super::check::{self, Verdict};
use super::counts::Counts;
use super::damage::{self, Damage};
use super::devices::{DEVICES, Devices};
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
    /// Whether disks only seem to sync.
    pub(super) lying: bool,
    /// Where files are left that went against the claim.
    pub(super) keep: Option<&'a Path>,
    /// A database of an earlier scenario.
    pub(super) foreign: Image,
    /// Called after each cut; `false` ends.
    pub(super) proceed: &'a dyn Fn() -> bool,
}

/// What goes on through one scenario.
struct Run<'c> {
    seed: u64,
    random: StdRng,
    counts: &'c mut Counts,
}

/// A record that is cut, and what is known before its first change.
struct Stretch {
    changes: Vec<Change>,
    data: Arc<[u8]>,
    base: Image,
    known: Known,
    generation: u32,
}

/// A moment of a stretch.
struct Moment {
    disk: Disk,
    known: Known,
    /// Changes before it.
    at: usize,
    /// Whether the stretch's worker has opened the database.
    opened: bool,
}

impl Campaign<'_> {
    pub(super) fn run(&mut self, plan: Plan, counts: &mut Counts) -> Result<()> {
        let mut run = Run {
            seed: plan.seed,
            random: StdRng::seed_from_u64(plan.seed),
            counts,
        };
        let folder = self.folder.join("live");
        check::write(&folder, &Image::new())?;
        let mut record = Record::default();
        let fails = run.random.random_range(0..6) == 0;
        for leg in 0..run.random.random_range(1..=3) {
            let fate = run.fate(fails);
            let work = work(plan, leg, &mut run.random);
            self.recorder.run(&folder, work, &fate, &mut record)?;
            if fails {
                record.forget(run.random.random());
                for (name, bytes) in record.live(&Image::new()) {
                    std::fs::write(folder.join(name), bytes)?;
                }
            }
        }
        run.counts.scenarios += 1;
        let stretch = self.stretch(record, Image::new(), Known::default(), 1, run.counts)?;
        self.sweep(&stretch, plan.cuts, plan.damages, &mut run)
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
        for (name, bytes) in record.live(&base) {
            let path = self.folder.join("live").join(&name);
            let real = std::fs::read(&path).with_context(|| format!("the record has a file {name}"))?;
            ensure!(
                real == bytes,
                "the record of {name} is not what the worker has done"
            );
        }
        let (changes, data) = record.into_parts();
        Ok(Stretch {
            changes,
            data,
            base,
            known,
            generation,
        })
    }

    fn sweep(&mut self, stretch: &Stretch, cuts: u64, damages: u64, run: &mut Run<'_>) -> Result<()> {
        // What is cut again comes out of the same number.
        let further = if stretch.generation < GENERATIONS {
            cuts * 2 / 5
        } else {
            0
        };
        let own = cuts - further;
        let records = further.div_ceil(CUTS_PER_RECORD);
        let disk = Disk::new(&stretch.base, Arc::clone(&stretch.data));
        let mut moment = Moment {
            disk: if self.lying { disk.lying() } else { disk },
            known: stretch.known.clone(),
            at: 0,
            opened: false,
        };
        let mut earlier = Image::new();
        let mut seeds = Vec::new();
        let mut cuts_left = own;
        for (at, is_damage) in plan(stretch.changes.len(), own, damages, &mut run.random) {
            moment.advance(stretch, at, run);
            if !(self.proceed)() {
                return Ok(());
            }
            if is_damage {
                // Before the database is made nothing was promised of it.
                if moment.opened || stretch.generation > 1 {
                    self.damage(&moment, &mut earlier, run)?;
                }
                continue;
            }
            let survivor = self.cut(&moment, stretch.generation, run)?;
            let wanted = records - seeds.len() as u64;
            if let Some(survivor) = survivor
                && wanted > 0
                && (wanted >= cuts_left || run.random.random_range(0..cuts_left) < wanted)
            {
                seeds.push(survivor);
            }
            cuts_left -= 1;
        }
        let live = moment.disk.live();
        if !live.is_empty() {
            self.foreign = live;
        }
        let number = seeds.len() as u64;
        for (place, (image, known)) in (0..).zip(seeds) {
            // Spread evenly.
            let cuts = further * (place + 1) / number - further * place / number;
            self.go_on(image, known, stretch.generation + 1, cuts, run)?;
        }
        Ok(())
    }

    /// Cuts the power once. Gives what is left, when it holds what it should.
    fn cut(&self, moment: &Moment, generation: u32, run: &mut Run<'_>) -> Result<Option<(Image, Known)>> {
        let cut = Cut::random(&mut run.random);
        let (image, harm) = moment.disk.cut(&cut, &mut run.random);
        run.counts
            .cut(&cut, &harm, generation, generation > 1 && !moment.opened);
        let folder = self.folder.join("cut");
        check::write(&folder, &image)?;
        if run.random.random_range(0..4) == 0 {
            check::leave_shared_memory(&folder, &mut run.random)?;
        }
        let goes_on = (run.random.random_range(0..GOES_ON) == 0).then(|| run.random.random_range(0..DEVICES));
        let wrong = match check::check(&folder, self.devices, &moment.known, Extent::Everything, goes_on) {
            Verdict::Holds(held) => {
                run.counts.held(&held);
                return Ok(Some((image, held.known)));
            }
            Verdict::Refused { error, .. } => describe(&error),
            Verdict::Wrong(wrong) => wrong,
        };
        let (seed, at) = (run.seed, moment.at);
        let place = format!("seed {seed}, generation {generation}, after change {at}, {cut:?}");
        run.counts.violation(format!("{place}: {wrong}"));
        self.keep(&format!("{seed}-{generation}-{at}"), &image)?;
        Ok(None)
    }

    /// A worker goes on with what a cut has left; and then its power is cut.
    fn go_on(
        &mut self,
        image: Image,
        known: Known,
        generation: u32,
        cuts: u64,
        run: &mut Run<'_>,
    ) -> Result<()> {
        let folder = self.folder.join("live");
        check::write(&folder, &image)?;
        let mut record = Record::over(&image);
        let work = Work {
            seed: run.random.random(),
            commits: run.random.random_range(1..=12),
            batch: 12,
            prunes: run.random.random_range(0..4) == 0,
            prunes_beside: false,
        };
        let fate = run.fate(false);
        self.recorder.run(&folder, work, &fate, &mut record)?;
        let stretch = self.stretch(record, image, known, generation, run.counts)?;
        self.sweep(&stretch, cuts, 0, run)
    }

    fn damage(&self, moment: &Moment, earlier: &mut Image, run: &mut Run<'_>) -> Result<()> {
        let kind = Damage::ALL[run.random.random_range(0..Damage::ALL.len())];
        let folder = self.folder.join("damage");
        let live = moment.disk.live();
        let image = if kind.needs_settled() || run.random.random_range(0..3) == 0 {
            damage::settled(&live, &folder)?
        } else {
            live
        };
        let before = earlier.clone();
        if run.random.random_range(0..3) == 0 || earlier.is_empty() {
            *earlier = image.clone();
        }
        let Some(damaged) = kind.apply(image, &before, &self.foreign, &folder, &mut run.random)? else {
            run.counts.damage_without_object += 1;
            return Ok(());
        };
        check::write(&folder, &damaged)?;
        let verdict = check::check(&folder, self.devices, &moment.known, Extent::Promised, None);
        let (seed, at) = (run.seed, moment.at);
        if run
            .counts
            .damaged(kind, verdict, &format!("seed {seed}, after change {at}"))
        {
            self.keep(&format!("{seed}-{at}-{kind:?}"), &damaged)?;
        }
        Ok(())
    }

    fn keep(&self, name: &str, image: &Image) -> Result<()> {
        match self.keep {
            Some(folder) => check::write(&folder.join(name), image),
            None => Ok(()),
        }
    }
}

impl Moment {
    /// Makes the changes up to `until`, and hears what the worker says.
    fn advance(&mut self, stretch: &Stretch, until: usize, run: &mut Run<'_>) {
        for change in &stretch.changes[self.at..until] {
            self.disk.apply(change);
            self.at += 1;
            let Change::Said(mark) = change else { continue };
            self.opened |= matches!(mark, Mark::Opened { .. });
            if let Mark::Replayed { refused, accepted } = mark {
                run.counts.replays_refused += refused;
                if *accepted > 0 {
                    let seed = run.seed;
                    run.counts
                        .violation(format!("seed {seed}: {accepted} replays accepted by a worker"));
                }
            }
            let later = stretch.changes[self.at..]
                .iter()
                .filter_map(|change| match change {
                    Change::Said(mark) => Some(mark),
                    _ => None,
                });
            self.known.hear(mark, later);
        }
    }
}

impl Run<'_> {
    /// What befalls the next worker.
    fn fate(&mut self, fails: bool) -> Fate {
        let most = [12, 60, 1_500][self.random.random_range(0..3)];
        let fate = Fate {
            failing_syncs: if fails {
                failing_syncs(&mut self.random)
            } else {
                Vec::new()
            },
            killed_at: (self.random.random_range(0..3) == 0).then(|| self.random.random_range(1..most)),
        };
        self.counts.failing_syncs += fate.failing_syncs.len() as u64;
        self.counts.kills += u64::from(fate.killed_at.is_some());
        fate
    }
}

/// Moments in order: after how many changes, and whether it is one of damage.
fn plan(changes: usize, cuts: u64, damages: u64, random: &mut StdRng) -> Vec<(usize, bool)> {
    let kinds = (0..cuts).map(|_| false).chain((0..damages).map(|_| true));
    let mut plan: Vec<_> = kinds
        .map(|is_damage| (random.random_range(0..=changes), is_damage))
        .collect();
    plan.sort_unstable();
    plan
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
