//! How well a detector does on labelled readings: events found, delay, and false alarms.
//!
//! A false alarm is counted only where the readings are ordinary: outside every event, and
//! [`RECOVERY_READINGS`] after its end, as means need to recover. An event is found when an alarm
//! is on inside it; its delay runs from its start to then.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use tidegate_envelope::time::Timestamp;

/// Readings after an event that are neither ordinary nor part of it.
pub(crate) const RECOVERY_READINGS: usize = 240;
/// Types of events that one sensor cannot see: water used downstream looks like use, and a
/// recording played back agrees with itself.
pub(crate) const HIDDEN: [&str; 3] = ["leak_burst", "leak_slow", "replay_all"];

const DAY_S: f64 = 86_400.0;

/// One device's readings as a detector judged them, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judged {
    pub(crate) device: String,
    pub(crate) times: Vec<Timestamp>,
    /// Higher is more anomalous.
    pub(crate) scores: Vec<f32>,
    /// Whether each reading is over the threshold, or breaks a rule.
    pub(crate) over: Vec<bool>,
    /// Whether an alarm is on.
    pub(crate) alarm: Vec<bool>,
    /// The type of the event that each reading is labelled with.
    pub(crate) events: Vec<Option<String>>,
    /// Readings that the detector has not been trained on; the others are not counted.
    pub(crate) tested: Vec<bool>,
    /// Readings that set the threshold, where it is set by some of these.
    pub(crate) calibrated: Vec<bool>,
    /// Why each alarm began, by the reading where it did.
    pub(crate) reasons: BTreeMap<usize, String>,
}

/// One labelled event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    /// Readings from its first to behind its last.
    pub(crate) rows: Range<usize>,
    /// The first reading in it with an alarm.
    pub(crate) found: Option<usize>,
}

/// What was found in all.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// The rate that the threshold was set to.
    pub(crate) false_alarm_rate_set: f64,
    /// The mean over devices of the share of ordinary readings over the threshold.
    pub(crate) false_alarm_rate: Option<f64>,
    /// Alarms that began in ordinary readings, per device and day.
    pub(crate) false_episodes_per_device_day: Option<f64>,
    /// Ordinary readings that both rest on.
    pub(crate) ordinary_readings: u64,
    /// The mean over types of the share of events found, without [`HIDDEN`] types.
    pub(crate) event_recall_observable: Option<f64>,
    /// The mean over types of the share of readings in events over the threshold, likewise.
    pub(crate) reading_recall_observable: Option<f64>,
    /// Of the events found, all types.
    pub(crate) median_delay_s: Option<f64>,
    /// Area under the ROC curve of readings in events against ordinary ones; mean over devices.
    pub(crate) auroc: Option<f64>,
    pub(crate) types: Vec<TypeSummary>,
    pub(crate) devices: Vec<DeviceSummary>,
}

/// What was found of one type of event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TypeSummary {
    pub(crate) kind: String,
    pub(crate) observable: bool,
    pub(crate) events: usize,
    pub(crate) found: usize,
    pub(crate) reading_recall: f64,
    pub(crate) median_delay_s: Option<f64>,
}

/// What was found at one device.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeviceSummary {
    pub(crate) device: String,
    pub(crate) false_alarm_rate: Option<f64>,
    pub(crate) false_episodes_per_day: Option<f64>,
    pub(crate) events: usize,
    pub(crate) found: usize,
    pub(crate) auroc: Option<f64>,
}

impl Judged {
    /// Takes in one reading.
    pub(crate) fn push(&mut self, at: Timestamp, score: f32, over: bool, alarm: bool, event: Option<String>) {
        self.times.push(at);
        self.scores.push(score);
        self.over.push(over);
        self.alarm.push(alarm);
        self.events.push(event);
        self.tested.push(true);
        self.calibrated.push(false);
    }

    /// The tested events, in their order.
    pub(crate) fn found(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        for (row, kind) in self.events.iter().enumerate() {
            let Some(kind) = kind.as_ref().filter(|_| self.tested[row]) else {
                continue;
            };
            match events.last_mut() {
                Some(last) if last.rows.end == row && last.kind == *kind => last.rows.end += 1,
                _ => events.push(Event {
                    kind: kind.clone(),
                    rows: row..row + 1,
                    found: None,
                }),
            }
        }
        for event in &mut events {
            event.found = event.rows.clone().find(|&row| self.alarm[row]);
        }
        events
    }

    /// Whether each reading is ordinary: tested, in no event, and none is just over.
    pub(crate) fn ordinary(&self) -> Vec<bool> {
        let mut quiet_for = RECOVERY_READINGS;
        let rows = self.events.iter().zip(&self.tested);
        rows.map(|(event, tested)| {
            quiet_for = if event.is_some() { 0 } else { quiet_for + 1 };
            // The first reading after an event is quiet for 1.
            *tested && quiet_for > RECOVERY_READINGS
        })
        .collect()
    }

    /// Usual seconds between two readings.
    pub(crate) fn interval_s(&self) -> f64 {
        let gaps = self
            .times
            .windows(2)
            .map(|pair| pair[1].since(pair[0]).as_secs_f64());
        median(gaps.collect()).unwrap_or(0.0)
    }

    fn delay_s(&self, event: &Event) -> Option<f64> {
        let found = self.times[event.found?];
        Some(found.since(self.times[event.rows.start]).as_secs_f64())
    }

    /// Scores of ordinary readings and of readings in events.
    pub(crate) fn split_scores(&self) -> (Vec<f32>, Vec<f32>) {
        let ordinary = self.ordinary();
        let mut split = (Vec::new(), Vec::new());
        for (row, score) in self.scores.iter().enumerate() {
            if ordinary[row] {
                split.0.push(*score);
            } else if self.tested[row] && self.events[row].is_some() {
                split.1.push(*score);
            }
        }
        split
    }

    fn summary(&self) -> DeviceSummary {
        let ordinary = self.ordinary();
        let count = ordinary.iter().filter(|ordinary| **ordinary).count();
        let over = ordinary.iter().zip(&self.over).filter(|(a, b)| **a && **b);
        let days = count as f64 * self.interval_s() / DAY_S;
        let events = self.found();
        let (normal, anomalous) = self.split_scores();
        DeviceSummary {
            device: self.device.clone(),
            false_alarm_rate: (count > 0).then(|| over.count() as f64 / count as f64),
            false_episodes_per_day: (days > 0.0).then(|| self.false_episodes(&ordinary) as f64 / days),
            found: events.iter().filter(|event| event.found.is_some()).count(),
            events: events.len(),
            auroc: auroc(&normal, &anomalous),
        }
    }

    /// Alarms that begin in ordinary readings.
    fn false_episodes(&self, ordinary: &[bool]) -> usize {
        let false_alarm: Vec<bool> = ordinary.iter().zip(&self.alarm).map(|(a, b)| *a && *b).collect();
        let begun = false_alarm.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        begun + usize::from(false_alarm.first() == Some(&true))
    }
}

impl Summary {
    /// Sums up devices that were judged by one threshold, set to `false_alarm_rate_set`.
    pub(crate) fn of(fleet: &[Judged], false_alarm_rate_set: f64) -> Self {
        let devices: Vec<DeviceSummary> = fleet.iter().map(Judged::summary).collect();
        let ordinary = |judged: &Judged| judged.ordinary().iter().filter(|ordinary| **ordinary).count();
        let types = types(fleet);
        let observable = || types.iter().filter(|of_type| of_type.observable);
        let delays = fleet.iter().flat_map(|judged| {
            let events = judged.found();
            events.into_iter().filter_map(|event| judged.delay_s(&event))
        });
        Self {
            false_alarm_rate_set,
            false_alarm_rate: mean(devices.iter().filter_map(|device| device.false_alarm_rate)),
            false_episodes_per_device_day: mean(
                devices.iter().filter_map(|device| device.false_episodes_per_day),
            ),
            ordinary_readings: fleet.iter().map(ordinary).sum::<usize>() as u64,
            event_recall_observable: mean(
                observable().map(|of_type| of_type.found as f64 / of_type.events as f64),
            ),
            reading_recall_observable: mean(observable().map(|of_type| of_type.reading_recall)),
            median_delay_s: median(delays.collect()),
            auroc: mean(devices.iter().filter_map(|device| device.auroc)),
            types,
            devices,
        }
    }
}

fn types(fleet: &[Judged]) -> Vec<TypeSummary> {
    /// Found or not, share of readings over, delay.
    type Found = (bool, f64, Option<f64>);
    let mut by_type: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for judged in fleet {
        for event in judged.found() {
            let over = event.rows.clone().filter(|&row| judged.over[row]).count();
            let share = over as f64 / event.rows.len() as f64;
            let found = (event.found.is_some(), share, judged.delay_s(&event));
            by_type.entry(event.kind).or_default().push(found);
        }
    }
    let summary = |(kind, events): (String, Vec<Found>)| TypeSummary {
        observable: !HIDDEN.contains(&kind.as_str()),
        kind,
        events: events.len(),
        found: events.iter().filter(|(found, ..)| *found).count(),
        reading_recall: events.iter().map(|(_, share, _)| share).sum::<f64>() / events.len() as f64,
        median_delay_s: median(events.iter().filter_map(|(.., delay)| *delay).collect()),
    };
    by_type.into_iter().map(summary).collect()
}

/// The conformal quantile: of n sorted scores, the ⌈(n+1)(1−rate)⌉-th smallest, at most the largest.
pub(crate) fn conformal(sorted: &[f32], rate: f64) -> Option<f32> {
    let rank = ((sorted.len() as f64 + 1.0) * (1.0 - rate)).ceil() as usize;
    let last = sorted.len().checked_sub(1)?;
    sorted.get(rank.saturating_sub(1).min(last)).copied()
}

/// Area under the ROC curve: how often an anomalous score is above an ordinary one, ties half.
pub(crate) fn auroc(ordinary: &[f32], anomalous: &[f32]) -> Option<f64> {
    if ordinary.is_empty() || anomalous.is_empty() {
        return None;
    }
    let mut sorted = ordinary.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let wins: f64 = anomalous
        .iter()
        .map(|score| {
            let below = sorted.partition_point(|other| other < score);
            let up_to = sorted.partition_point(|other| other <= score);
            (below + up_to) as f64 / 2.0
        })
        .sum();
    Some(wins / (ordinary.len() as f64 * anomalous.len() as f64))
}

/// `None` of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u64, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / count as f64)
}

/// `None` of nothing; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let above = *values.get(middle)?;
    Some(if values.len().is_multiple_of(2) {
        (values[middle - 1] + above) / 2.0
    } else {
        above
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading every 5 s; `!` is over the threshold and an alarm, a letter is an event.
    fn judged(readings: usize, over: &[usize], event: Range<usize>) -> Judged {
        let mut judged = Judged {
            device: "d".into(),
            ..Judged::default()
        };
        for row in 0..readings {
            let hit = over.contains(&row);
            let kind = event.contains(&row).then(|| "stuck".to_owned());
            let at = Timestamp::from_micros(row as i64 * 5_000_000);
            judged.push(at, if hit { 0.9 } else { 0.4 }, hit, hit, kind);
        }
        judged
    }

    #[test]
    fn delay_is_from_the_start_of_an_event_to_the_first_alarm_in_it() {
        let summary = Summary::of(&[judged(1_000, &[104, 105], 100..110)], 1e-3);
        assert_eq!(summary.median_delay_s, Some(20.0));
        assert_eq!(summary.event_recall_observable, Some(1.0));
        assert_eq!(summary.reading_recall_observable, Some(0.2));
        assert_eq!(summary.types[0].found, 1);
    }

    #[test]
    fn alarms_just_after_an_event_are_not_false_and_later_ones_are() {
        let last = 110 + RECOVERY_READINGS - 1;
        let recovering = Summary::of(&[judged(1_000, &[last], 100..110)], 1e-3);
        assert_eq!(recovering.false_alarm_rate, Some(0.0));
        assert_eq!(
            recovering.ordinary_readings,
            1_000 - 10 - RECOVERY_READINGS as u64
        );
        let later = Summary::of(&[judged(1_000, &[last + 1], 100..110)], 1e-3);
        assert_eq!(later.false_alarm_rate, Some(1.0 / 750.0));
        let days = 750.0 * 5.0 / DAY_S;
        assert_eq!(later.false_episodes_per_device_day, Some(1.0 / days));
    }

    #[test]
    fn readings_that_were_trained_on_do_not_count() {
        let mut judged = judged(1_000, &[5, 6], 0..0);
        judged.tested[..100].fill(false);
        let summary = Summary::of(&[judged], 1e-3);
        assert_eq!(
            (summary.false_alarm_rate, summary.ordinary_readings),
            (Some(0.0), 900)
        );
        assert_eq!(summary.event_recall_observable, None);
    }

    #[test]
    fn hidden_types_are_listed_and_not_averaged() {
        let mut judged = judged(1_000, &[], 100..110);
        for kind in judged.events.iter_mut().flatten() {
            *kind = "leak_slow".into();
        }
        let summary = Summary::of(&[judged], 1e-3);
        assert!(!summary.types[0].observable);
        assert_eq!(summary.event_recall_observable, None);
    }

    #[test]
    fn area_under_the_curve_counts_ties_half() {
        assert_eq!(auroc(&[0.1, 0.2], &[0.3, 0.4]), Some(1.0));
        assert_eq!(auroc(&[0.3, 0.4], &[0.1]), Some(0.0));
        assert_eq!(auroc(&[0.2, 0.4], &[0.2, 0.3]), Some(0.375));
        assert_eq!(auroc(&[], &[0.3]), None);
    }

    #[test]
    fn conformal_rank_is_that_of_the_metric() {
        let scores: Vec<f32> = (1..=1_999_u16).map(f32::from).collect();
        assert_eq!(conformal(&scores, 1e-3), Some(1_998.0));
        assert_eq!(conformal(&scores[..99], 1e-3), Some(99.0));
        assert_eq!(conformal(&[], 0.1), None);
    }
}
