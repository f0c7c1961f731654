//! Shadow mode: a candidate model judges beside the active one, and only the differences count.

use crate::detector::{Assessment, Detector};
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// Most differences that a report keeps in full; all are counted.
pub const MAX_DIFFERENCES: usize = 1_000;

/// Two detectors on the same readings.
#[derive(Debug)]
pub struct Shadow {
    active: Detector,
    candidate: Detector,
    report: Report,
}

/// Where two models differ so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// How many readings both have seen.
    pub readings: u64,
    /// Flagged by both.
    pub both: u64,
    /// Flagged by the active one alone.
    pub only_active: u64,
    /// Flagged by the candidate alone.
    pub only_candidate: u64,
    /// The first [`MAX_DIFFERENCES`] differences, each where one begins.
    pub differences: Vec<Difference>,
    /// Whether the last reading of each device was one that only one of them flagged.
    differing: Vec<bool>,
}

/// The first of the readings in a row that only one of two models flagged.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The device.
    pub device: DeviceIndex,
    /// When.
    pub at: Timestamp,
    /// Whether it was the candidate that flagged it.
    pub by_candidate: bool,
    /// The active model's score, as an [`Assessment`] has it.
    pub active_score: f32,
    /// The candidate's.
    pub candidate_score: f32,
    /// Why the one that flagged it did.
    pub sentence: String,
}

impl Shadow {
    /// Puts `candidate` beside `active`; both must have been made for the same devices.
    #[must_use]
    pub fn new(active: Detector, candidate: Detector) -> Self {
        Self {
            active,
            candidate,
            report: Report::default(),
        }
    }

    /// Has both assess a reading; answers what the active one says, as without a shadow.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    pub fn assess(&mut self, device: DeviceIndex, at: Timestamp, channels: &Channels) -> Assessment {
        let active = self.active.assess(device, at, channels);
        let candidate = self.candidate.assess(device, at, channels);
        self.report.observe(device, at, &active, &candidate);
        active
    }

    /// Where they differ so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Ends the shadow: the active detector, the candidate, and where they differed.
    #[must_use]
    pub fn into_parts(self) -> (Detector, Detector, Report) {
        (self.active, self.candidate, self.report)
    }
}

impl Report {
    /// Takes in what two models said of the same reading.
    pub fn observe(
        &mut self,
        device: DeviceIndex,
        at: Timestamp,
        active: &Assessment,
        candidate: &Assessment,
    ) {
        self.readings += 1;
        let index = device.0 as usize;
        if self.differing.len() <= index {
            self.differing.resize(index + 1, false);
        }
        let began = !self.differing[index];
        self.differing[index] = active.flagged != candidate.flagged;
        match (active.flagged, candidate.flagged) {
            (false, false) => return,
            (true, true) => {
                self.both += 1;
                return;
            }
            (true, false) => self.only_active += 1,
            (false, true) => self.only_candidate += 1,
        }
        if began && self.differences.len() < MAX_DIFFERENCES {
            let flagged = if candidate.flagged { candidate } else { active };
            let reason = flagged.reason.as_ref();
            self.differences.push(Difference {
                device,
                at,
                by_candidate: candidate.flagged,
                active_score: active.score,
                candidate_score: candidate.score,
                sentence: reason.map(|reason| reason.sentence.clone()).unwrap_or_default(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flagged: bool) -> Assessment {
        Assessment {
            score: if flagged { -0.1 } else { 0.1 },
            flagged,
            reason: None,
        }
    }

    #[test]
    fn differences_are_counted_by_reading_and_kept_by_beginning() {
        let mut report = Report::default();
        let readings = [
            (false, false),
            (true, true),
            (true, false),
            (true, false),
            (false, false),
            (false, true),
        ];
        for (second, (active, candidate)) in (0_i64..).zip(readings) {
            let at = Timestamp::from_micros(second * 1_000_000);
            report.observe(DeviceIndex(0), at, &said(active), &said(candidate));
        }
        assert_eq!(
            (
                report.readings,
                report.both,
                report.only_active,
                report.only_candidate
            ),
            (6, 1, 2, 1)
        );
        let kept: Vec<_> = report
            .differences
            .iter()
            .map(|d| (d.at.as_micros() / 1_000_000, d.by_candidate))
            .collect();
        assert_eq!(kept, [(2, false), (5, true)]);
    }

    #[test]
    fn devices_differ_each_by_itself() {
        let mut report = Report::default();
        for device in [0, 1, 0, 1] {
            report.observe(
                DeviceIndex(device),
                Timestamp::from_micros(0),
                &said(true),
                &said(false),
            );
        }
        assert_eq!((report.only_active, report.differences.len()), (4, 2));
    }

    #[test]
    fn kept_differences_are_bounded_and_counted_ones_are_not() {
        let mut report = Report::default();
        for device in 0..=MAX_DIFFERENCES as u32 {
            report.observe(
                DeviceIndex(device),
                Timestamp::from_micros(0),
                &said(false),
                &said(true),
            );
        }
        assert_eq!(report.differences.len(), MAX_DIFFERENCES);
        assert_eq!(report.only_candidate, MAX_DIFFERENCES as u64 + 1);
    }
}
