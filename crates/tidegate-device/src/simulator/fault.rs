//! Faults and manipulations: what they do to the readings of a sensor while they last.

use super::sensor::round;
use super::{FLOW_RATE, PRESSURE_UPSTREAM};
use compact_str::CompactString;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;
use std::time::Duration;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// What happens to the readings.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// Upstream pressure anywhere in a high range, PSI.
    HighPressure(RangeInclusive<f64>),
    /// Upstream pressure anywhere in a low range, PSI.
    LowPressure(RangeInclusive<f64>),
    /// Every channel repeats its first value.
    StuckSensor,
    /// Flow anywhere in a high range, L/min, without the pressure that belongs to it.
    FlowSurge(RangeInclusive<f64>),
    /// Flow anywhere in a low range, L/min, without the pressure that belongs to it.
    FlowDrop(RangeInclusive<f64>),
    /// Upstream pressure creeps away.
    SlowDrift {
        /// PSI per minute; negative drifts downwards.
        psi_per_minute: f64,
    },
    /// Flow wanders through its normal range, and the pressures do not follow.
    BrokenCorrelation {
        /// The normal range, L/min.
        flow_lpm: RangeInclusive<f64>,
        /// How long it takes from one end to the other and back.
        period: Duration,
    },
}

impl FaultKind {
    /// The names of all kinds.
    pub const NAMES: [&'static str; 7] = [
        "high-pressure",
        "low-pressure",
        "stuck-sensor",
        "flow-surge",
        "flow-drop",
        "slow-drift",
        "broken-correlation",
    ];

    /// The kind with this name, with its usual strength.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "high-pressure" => Self::HighPressure(63.0..=70.0),
            "low-pressure" => Self::LowPressure(50.0..=57.0),
            "stuck-sensor" => Self::StuckSensor,
            "flow-surge" => Self::FlowSurge(56.0..=65.0),
            "flow-drop" => Self::FlowDrop(33.0..=44.0),
            // 0.02 PSI in each reading at 5 s.
            "slow-drift" => Self::SlowDrift { psi_per_minute: 0.24 },
            "broken-correlation" => Self::BrokenCorrelation {
                flow_lpm: 22.0..=55.0,
                period: Duration::from_secs(300),
            },
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::HighPressure(_) => "high-pressure",
            Self::LowPressure(_) => "low-pressure",
            Self::StuckSensor => "stuck-sensor",
            Self::FlowSurge(_) => "flow-surge",
            Self::FlowDrop(_) => "flow-drop",
            Self::SlowDrift { .. } => "slow-drift",
            Self::BrokenCorrelation { .. } => "broken-correlation",
        }
    }
}

/// A fault on one sensor, from a start on for a while.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    start: Timestamp,
    duration: Duration,
    /// What a stuck sensor repeats.
    held: Option<Channels>,
    random: StdRng,
}

impl Fault {
    /// A fault that begins at `start`. The same seed gives the same values.
    #[must_use]
    pub fn new(kind: FaultKind, start: Timestamp, duration: Duration, seed: u64) -> Self {
        Self {
            kind,
            start,
            duration,
            held: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// What it does.
    #[must_use]
    pub const fn kind(&self) -> &FaultKind {
        &self.kind
    }

    /// Whether it acts at a time: from the start on, up to and without the end.
    #[must_use]
    pub fn is_active(&self, at: Timestamp) -> bool {
        self.start <= at && at.since(self.start) < self.duration
    }

    /// The reading as the faulty sensor gives it; unchanged while the fault does not act.
    pub fn apply(&mut self, at: Timestamp, reading: Channels) -> Channels {
        if !self.is_active(at) {
            self.held = None;
            return reading;
        }
        let elapsed = at.since(self.start);
        match &self.kind {
            FaultKind::HighPressure(psi) | FaultKind::LowPressure(psi) => {
                let value = self.random.random_range(psi.clone());
                with(&reading, &[(PRESSURE_UPSTREAM, value)])
            }
            FaultKind::StuckSensor => self.held.get_or_insert(reading).clone(),
            FaultKind::FlowSurge(lpm) | FaultKind::FlowDrop(lpm) => {
                let value = self.random.random_range(lpm.clone());
                with(&reading, &[(FLOW_RATE, value)])
            }
            FaultKind::SlowDrift { psi_per_minute } => {
                let drift_psi = psi_per_minute * elapsed.as_secs_f64() / 60.0;
                let upstream = reading.get(PRESSURE_UPSTREAM).map(|psi| psi + drift_psi);
                with(
                    &reading,
                    &upstream
                        .map(|psi| (PRESSURE_UPSTREAM, psi))
                        .into_iter()
                        .collect::<Vec<_>>(),
                )
            }
            FaultKind::BrokenCorrelation { flow_lpm, period } => {
                let turns = elapsed.as_secs_f64() / period.as_secs_f64().max(1.0);
                let triangle = 1.0 - (2.0 * turns.fract() - 1.0).abs();
                let jitter = self.random.random_range(-0.3..=0.3);
                let wandering = flow_lpm.start() + (flow_lpm.end() - flow_lpm.start()) * triangle + jitter;
                with(
                    &reading,
                    &[(FLOW_RATE, wandering.clamp(*flow_lpm.start(), *flow_lpm.end()))],
                )
            }
        }
    }
}

/// The reading with some channels replaced, rounded as instruments report them. A channel that the
/// sensor does not have stays away.
fn with(reading: &Channels, replaced: &[(&str, f64)]) -> Channels {
    let value = |name: &str, measured: f64| {
        replaced
            .iter()
            .find(|(replaced, _)| *replaced == name)
            .map_or(measured, |(_, value)| round(*value))
    };
    let values = reading
        .iter()
        .map(|(name, measured)| (CompactString::new(name), value(name, measured)))
        .collect();
    Channels::new(values).expect("the names and the number of values are those of a valid reading")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Building, PRESSURE_DOWNSTREAM, Zone};
    use tidegate_envelope::id::DeviceId;

    const START: Timestamp = Timestamp::from_micros(1_771_502_400_000_000);
    const STEP: Duration = Duration::from_secs(5);
    const DURATION: Duration = Duration::from_secs(600);

    /// Pairs of true and faulty readings: before, while and after the fault acts.
    fn run(kind: &FaultKind) -> [Vec<(Channels, Channels)>; 3] {
        let mut sensor = Building::new(5).sensor(Zone::MainBuilding, &DeviceId::new("device-001").unwrap());
        let mut fault = Fault::new(kind.clone(), START, DURATION, 9);
        let mut span = |from: Timestamp| {
            (0..120)
                .map(|step| {
                    let at = from.plus(STEP * step);
                    let truth = sensor.sample(at);
                    (truth.clone(), fault.apply(at, truth))
                })
                .collect()
        };
        [
            span(START.minus(DURATION)),
            span(START),
            span(START.plus(DURATION)),
        ]
    }

    /// Only `channel` differs while the fault acts, nothing before or after; its values while it acts.
    fn changed(name: &str, channel: &str) -> Vec<f64> {
        let kind = FaultKind::from_name(name).unwrap();
        let [before, during, after] = run(&kind);
        for (truth, faulty) in before.iter().chain(&after) {
            assert_eq!(truth, faulty, "{name}");
        }
        for (truth, faulty) in &during {
            let others = |reading: &Channels| {
                reading
                    .iter()
                    .filter(|(name, _)| *name != channel)
                    .map(|(_, value)| value)
                    .collect::<Vec<_>>()
            };
            assert_eq!(others(truth), others(faulty), "{name}");
        }
        during
            .iter()
            .map(|(_, faulty)| faulty.get(channel).unwrap())
            .collect()
    }

    #[test]
    fn pressure_and_flow_faults_stay_in_their_ranges_and_touch_one_channel() {
        for (name, channel, low, high) in [
            ("high-pressure", PRESSURE_UPSTREAM, 63.0, 70.0),
            ("low-pressure", PRESSURE_UPSTREAM, 50.0, 57.0),
            ("flow-surge", FLOW_RATE, 56.0, 65.0),
            ("flow-drop", FLOW_RATE, 33.0, 44.0),
            ("broken-correlation", FLOW_RATE, 22.0, 55.0),
        ] {
            let values = changed(name, channel);
            assert!(
                values.iter().all(|value| (low..=high).contains(value)),
                "{name}: {values:?}"
            );
            let spread = values.iter().fold(f64::MIN, |a, b| a.max(*b))
                - values.iter().fold(f64::MAX, |a, b| a.min(*b));
            assert!(spread > 0.7 * (high - low), "{name}: spread {spread}");
        }
    }

    #[test]
    fn stuck_sensor_repeats_its_first_reading_and_recovers() {
        let [_, during, after] = run(&FaultKind::StuckSensor);
        assert!(during.iter().all(|(_, faulty)| *faulty == during[0].0));
        assert!(after.iter().all(|(truth, faulty)| truth == faulty));
    }

    #[test]
    fn slow_drift_grows_by_its_rate() {
        let kind = FaultKind::from_name("slow-drift").unwrap();
        let [_, during, _] = run(&kind);
        for (step, (truth, faulty)) in during.iter().enumerate() {
            let drift = faulty.get(PRESSURE_UPSTREAM).unwrap() - truth.get(PRESSURE_UPSTREAM).unwrap();
            assert!(
                (drift - 0.02 * step as f64).abs() < 0.006,
                "reading {step}: {drift}"
            );
        }
    }

    #[test]
    fn broken_correlation_leaves_the_pressure_lost_unexplained() {
        let [before, during, _] = run(&FaultKind::from_name("broken-correlation").unwrap());
        let worst = |pairs: &[(Channels, Channels)]| {
            let surprise = |reading: &Channels| {
                let channel = |name| reading.get(name).unwrap();
                let loss = channel(PRESSURE_UPSTREAM) - channel(PRESSURE_DOWNSTREAM);
                (loss - 1.2 - 0.001_94 * channel(FLOW_RATE).powi(2)).abs()
            };
            pairs
                .iter()
                .map(|(_, faulty)| surprise(faulty))
                .fold(0.0, f64::max)
        };
        assert!(
            worst(&during) > 3.0 * worst(&before),
            "{} and {}",
            worst(&during),
            worst(&before)
        );
    }

    #[test]
    fn every_name_leads_to_its_kind_and_no_other_does() {
        for name in FaultKind::NAMES {
            assert_eq!(FaultKind::from_name(name).unwrap().as_str(), name);
        }
        assert_eq!(FaultKind::from_name("leak"), None);
    }

    #[test]
    fn channel_that_the_sensor_lacks_is_not_invented() {
        let reading = Channels::new(vec![(CompactString::new(FLOW_RATE), 30.0)]).unwrap();
        let mut fault = Fault::new(FaultKind::from_name("slow-drift").unwrap(), START, DURATION, 1);
        assert_eq!(fault.apply(START.plus(STEP), reading.clone()), reading);
    }
}
