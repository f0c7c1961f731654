//! What was tried, and what was found.

use super::campaign::describe;
use super::check::{Held, Verdict};
use super::damage::Damage;
use super::disk::{Cut, Harm, Loss};
use crate::report::Running;
use std::collections::BTreeMap;
use tidegate_store::error::StoreError;

/// Violations that are shown; all are counted.
const SHOWN: usize = 20;

/// Counts of one or several scenarios.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) scenarios: u64,
    pub(super) failing_syncs: u64,
    pub(super) kills: u64,
    pub(super) log_started_over: u64,
    pub(super) replays_refused: u64,
    pub(super) damage_without_object: u64,
    cuts: u64,
    by_loss: BTreeMap<Loss, u64>,
    by_generation: BTreeMap<u32, u64>,
    in_recovery: u64,
    strict_names: u64,
    harm: Harm,
    recovered: u64,
    readings: u64,
    damages: BTreeMap<Damage, Outcomes>,
    violations: Vec<String>,
    violated: u64,
}

/// What became of one kind of damage.
#[derive(Debug, Default)]
struct Outcomes {
    refused_at_opening: u64,
    refused_at_reading: u64,
    harmless: u64,
}

impl Counts {
    pub(super) fn cut(&mut self, cut: &Cut, harm: &Harm, generation: u32, in_recovery: bool) {
        self.cuts += 1;
        *self.by_loss.entry(cut.loss).or_default() += 1;
        *self.by_generation.entry(generation).or_default() += 1;
        self.in_recovery += u64::from(in_recovery);
        self.strict_names += u64::from(cut.strict_names);
        self.harm.add(harm);
    }

    pub(super) fn held(&mut self, held: &Held) {
        self.recovered += 1;
        self.readings += held.known.rows.len() as u64;
        self.replays_refused += held.replays_refused;
    }

    /// Whether it went against the claim.
    pub(super) fn damaged(&mut self, kind: Damage, verdict: Verdict, place: &str) -> bool {
        let before = self.violated;
        let outcomes = self.damages.entry(kind).or_default();
        match verdict {
            Verdict::Holds(held) => {
                outcomes.harmless += 1;
                self.readings += held.known.rows.len() as u64;
                self.replays_refused += held.replays_refused;
            }
            Verdict::Refused { error, at_opening } => {
                *(if at_opening {
                    &mut outcomes.refused_at_opening
                } else {
                    &mut outcomes.refused_at_reading
                }) += 1;
                if !is_clear(&error) {
                    let error = describe(&error);
                    self.violation(format!(
                        "{place}, {}: refused, but unclear: {error}",
                        kind.describe()
                    ));
                }
            }
            Verdict::Wrong(wrong) => self.violation(format!("{place}, {}: {wrong}", kind.describe())),
        }
        self.violated > before
    }

    pub(super) fn violation(&mut self, what: String) {
        self.violated += 1;
        if self.violations.len() < SHOWN {
            self.violations.push(what);
        }
    }

    pub(super) fn violated(&self) -> u64 {
        self.violated
    }

    pub(super) fn add(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.failing_syncs += other.failing_syncs;
        self.kills += other.kills;
        self.log_started_over += other.log_started_over;
        self.replays_refused += other.replays_refused;
        self.damage_without_object += other.damage_without_object;
        self.cuts += other.cuts;
        for (loss, count) in other.by_loss {
            *self.by_loss.entry(loss).or_default() += count;
        }
        for (generation, count) in other.by_generation {
            *self.by_generation.entry(generation).or_default() += count;
        }
        self.in_recovery += other.in_recovery;
        self.strict_names += other.strict_names;
        self.harm.add(&other.harm);
        self.recovered += other.recovered;
        self.readings += other.readings;
        for (kind, outcomes) in other.damages {
            let own = self.damages.entry(kind).or_default();
            own.refused_at_opening += outcomes.refused_at_opening;
            own.refused_at_reading += outcomes.refused_at_reading;
            own.harmless += outcomes.harmless;
        }
        self.violated += other.violated;
        let room = SHOWN.saturating_sub(self.violations.len());
        self.violations.extend(other.violations.into_iter().take(room));
    }

    pub(super) fn report(self, running: &mut Running) {
        running.count("power cuts", self.cuts);
        for loss in Loss::ALL {
            let count = self.by_loss.get(&loss).copied().unwrap_or(0);
            running.count(&format!("of them: {}", loss.describe()), count);
        }
        running.count("of them: names durable with their folder only", self.strict_names);
        for (generation, count) in &self.by_generation {
            if *generation > 1 {
                running.count(
                    &format!("of them: cut number {generation} of the same database"),
                    *count,
                );
            }
        }
        running.count("of them: in the middle of a recovery", self.in_recovery);
        running.count("unsynced writes lost", self.harm.lost_writes);
        running.count("unsynced writes torn", self.harm.torn_writes);
        running.count("sectors zeroed, bit-flipped or garbage", self.harm.spoilt_sectors);
        running.count("file names lost or back again", self.harm.lost_names);
        running.count("syncs that were to fail", self.failing_syncs);
        running.count(
            "workers that were to be killed, and the power cut later",
            self.kills,
        );
        running.count("scenarios recorded", self.scenarios);
        running.count(
            "times that the log had started over in place",
            self.log_started_over,
        );
        running.count("recoveries that hold what was acknowledged", self.recovered);
        running.count("acknowledged readings compared", self.readings);
        running.count("replays offered and refused", self.replays_refused);
        let trials = |pick: fn(&Outcomes) -> u64| self.damages.values().map(pick).sum::<u64>();
        running.count(
            "files damaged otherwise, and refused at opening",
            trials(|of| of.refused_at_opening),
        );
        running.count(
            "files damaged otherwise, and refused when read",
            trials(|of| of.refused_at_reading),
        );
        running.count(
            "files damaged otherwise, and no harm done",
            trials(|of| of.harmless),
        );
        for (kind, of) in &self.damages {
            running.note(&format!(
                "{}: {} refused at opening, {} when read, {} harmless.",
                kind.describe(),
                of.refused_at_opening,
                of.refused_at_reading,
                of.harmless
            ));
        }
        let unseen = self.violated - self.violations.len() as u64;
        for violation in self.violations {
            running.violation(violation);
        }
        if unseen > 0 {
            running.violation(format!("{unseen} more like these"));
        }
    }
}

impl Harm {
    fn add(&mut self, other: &Self) {
        self.lost_writes += other.lost_writes;
        self.torn_writes += other.torn_writes;
        self.spoilt_sectors += other.spoilt_sectors;
        self.lost_names += other.lost_names;
    }
}

/// Whether an error says what is wrong with the file.
fn is_clear(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Damaged { .. }
            | StoreError::Foreign { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::OlderSchema { .. }
    )
}
