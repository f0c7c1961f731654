//! One simulated device: what its five channels read at a time.

use super::demand::Zone;
use super::noise::Noise;
use super::{FLOW_RATE, GATE_A_POSITION, GATE_B_POSITION, PRESSURE_DOWNSTREAM, PRESSURE_UPSTREAM};
use compact_str::CompactString;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// Pressure of the supply at no flow, PSI.
const STATIC_PSI: f64 = 61.8;
/// Fall of the supply's pressure, PSI per (L/min)²: 3.6 PSI at 60 L/min.
const SUPPLY_FALL: f64 = 0.001;
/// Pressure lost across the gates at [`GATE_PERCENT`], PSI per (L/min)²: 7 PSI at 60 L/min.
const GATE_LOSS: f64 = 0.001_94;
/// Pressure lost at any flow, PSI.
const FIXED_LOSS_PSI: f64 = 1.2;
/// Where the gates stand on average, percent open.
const GATE_PERCENT: f64 = 45.0;
/// The least flow that is ever measured, L/min.
const LEAST_FLOW_LPM: f64 = 2.0;

/// A building: makes sensors that differ from each other, always the same ones for a seed.
#[derive(Debug, Clone, Copy)]
pub struct Building {
    seed: u64,
}

impl Building {
    /// The building of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The sensor of `device` in `zone`. Devices differ a little in supply, loss and demand.
    #[must_use]
    pub fn sensor(&self, zone: Zone, device: &DeviceId) -> SensorModel {
        let mut random = StdRng::seed_from_u64(self.seed ^ fingerprint(device.as_str()));
        let mut about = |centre: f64, spread: f64| centre + spread * random.random_range(-1.0..=1.0);
        SensorModel {
            zone,
            static_psi: about(STATIC_PSI, 0.3),
            gate_loss: about(GATE_LOSS, 0.000_1),
            demand_scale: about(1.0, 0.06),
            supply: Noise::new(0.15, 1_800.0, &mut random),
            demand: Noise::new(1.6, 600.0, &mut random),
            draw: Noise::new(0.9, 40.0, &mut random),
            gates: [
                Noise::new(1.5, 3_600.0, &mut random),
                Noise::new(1.5, 5_400.0, &mut random),
            ],
            // Upstream, downstream, flow, gate A, gate B.
            sensors: [0.12, 0.12, 0.25, 0.04, 0.04].map(|deviation| Noise::new(deviation, 8.0, &mut random)),
            last: None,
            random,
        }
    }
}

/// The state of one simulated device.
#[derive(Debug)]
pub struct SensorModel {
    zone: Zone,
    static_psi: f64,
    gate_loss: f64,
    demand_scale: f64,
    /// The supply outside the building.
    supply: Noise,
    /// Busier and quieter quarters of an hour.
    demand: Noise,
    /// Single taps.
    draw: Noise,
    /// The gates are adjusted slowly.
    gates: [Noise; 2],
    /// Errors of the instruments themselves.
    sensors: [Noise; 5],
    last: Option<Timestamp>,
    random: StdRng,
}

impl SensorModel {
    /// The reading at a time: five channels, rounded to two decimals.
    ///
    /// Times may be any distance apart, so simulated time may run faster than the clock. A time at
    /// or before the last one is treated as if no time had passed.
    pub fn sample(&mut self, at: Timestamp) -> Channels {
        let elapsed_s = self.last.map_or(0.0, |last| at.since(last).as_secs_f64());
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        let random = &mut self.random;
        let mean_lpm = self.demand_scale * self.zone.demand_lpm(at);
        let flow_lpm = (mean_lpm + self.demand.after(elapsed_s, random) + self.draw.after(elapsed_s, random))
            .max(LEAST_FLOW_LPM);
        let [gate_a, gate_b] = self
            .gates
            .each_mut()
            .map(|gate| GATE_PERCENT + gate.after(elapsed_s, random));
        let opening = 2.0 / ((GATE_PERCENT / gate_a).powi(2) + (GATE_PERCENT / gate_b).powi(2));
        let squared = flow_lpm * flow_lpm;
        let upstream_psi = self.static_psi + self.supply.after(elapsed_s, random) - SUPPLY_FALL * squared;
        let downstream_psi = upstream_psi - FIXED_LOSS_PSI - self.gate_loss * squared / opening;
        let [up, down, flow, a, b] = self
            .sensors
            .each_mut()
            .map(|sensor| sensor.after(elapsed_s, random));
        channels([
            (PRESSURE_UPSTREAM, upstream_psi + up),
            (PRESSURE_DOWNSTREAM, downstream_psi + down),
            (FLOW_RATE, (flow_lpm + flow).max(0.0)),
            (GATE_A_POSITION, (gate_a + a).clamp(0.0, 100.0)),
            (GATE_B_POSITION, (gate_b + b).clamp(0.0, 100.0)),
        ])
    }
}

/// Channels rounded to two decimals, as the instruments report them.
fn channels(values: [(&'static str, f64); 5]) -> Channels {
    let rounded = values.map(|(name, value)| (CompactString::const_new(name), round(value)));
    Channels::new(rounded.into()).expect("five finite values under different names")
}

/// Two decimals.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// FNV-1a: the same number for a name on every machine and in every version.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOON: Timestamp = Timestamp::from_micros(1_771_502_400_000_000);
    const STEP: Duration = Duration::from_secs(5);
    const ZONES: [Zone; 3] = [Zone::MainBuilding, Zone::PoolSpa, Zone::Kitchen];

    fn sensor(zone: Zone, name: &str) -> SensorModel {
        Building::new(7).sensor(zone, &DeviceId::new(name).unwrap())
    }

    fn readings(zone: Zone, count: u32) -> Vec<Channels> {
        let mut sensor = sensor(zone, "device-001");
        (0..count)
            .map(|step| sensor.sample(NOON.plus(STEP * step)))
            .collect()
    }

    fn column(readings: &[Channels], name: &str) -> Vec<f64> {
        readings
            .iter()
            .map(|reading| reading.get(name).unwrap())
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let (mean_a, mean_b) = (mean(a), mean(b));
        let sum = |f: &dyn Fn(f64, f64) -> f64| {
            a.iter()
                .zip(b)
                .map(|(a, b)| f(a - mean_a, b - mean_b))
                .sum::<f64>()
        };
        sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
    }

    #[test]
    fn a_day_stays_in_the_normal_ranges_of_a_building() {
        for zone in ZONES {
            let day = readings(zone, 17_280);
            let range = |name: &str, low: f64, high: f64, mean_low: f64, mean_high: f64| {
                let values = column(&day, name);
                let (least, most) = values
                    .iter()
                    .fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
                assert!(least >= low && most <= high, "{zone:?} {name}: {least} to {most}");
                let mean = mean(&values);
                assert!(
                    (mean_low..mean_high).contains(&mean),
                    "{zone:?} {name}: mean {mean}"
                );
            };
            range(PRESSURE_UPSTREAM, 57.0, 62.8, 59.0, 61.5);
            range(PRESSURE_DOWNSTREAM, 46.0, 61.5, 55.0, 58.5);
            range(FLOW_RATE, 12.0, 66.0, 25.0, 42.0);
            range(GATE_A_POSITION, 36.0, 54.0, 43.0, 47.0);
            range(GATE_B_POSITION, 36.0, 54.0, 43.0, 47.0);
        }
    }

    #[test]
    fn channels_explain_each_other() {
        for zone in ZONES {
            let day = readings(zone, 17_280);
            let [up, down, flow, a, b] = [
                PRESSURE_UPSTREAM,
                PRESSURE_DOWNSTREAM,
                FLOW_RATE,
                GATE_A_POSITION,
                GATE_B_POSITION,
            ]
            .map(|name| column(&day, name));
            let loss: Vec<_> = up.iter().zip(&down).map(|(up, down)| up - down).collect();
            let squared: Vec<_> = flow.iter().map(|flow| flow * flow).collect();
            assert!(
                correlation(&loss, &squared) > 0.97,
                "{zone:?}: {}",
                correlation(&loss, &squared)
            );
            assert!(
                correlation(&up, &squared) < -0.85,
                "{zone:?}: {}",
                correlation(&up, &squared)
            );
            // Per flow, a gate that is further open loses less; told from the instruments' noise
            // where there is enough flow.
            let busy: Vec<_> = (0..flow.len()).filter(|i| flow[*i] > 35.0).collect();
            let resistance: Vec<_> = busy
                .iter()
                .map(|i| (loss[*i] - FIXED_LOSS_PSI) / squared[*i])
                .collect();
            let opening: Vec<_> = busy.iter().map(|i| a[*i] + b[*i]).collect();
            assert!(
                correlation(&resistance, &opening) < -0.5,
                "{zone:?}: {}",
                correlation(&resistance, &opening)
            );
        }
    }

    #[test]
    fn same_seed_and_device_repeat_and_others_differ() {
        let first = |building: Building, name: &str| {
            let mut sensor = building.sensor(Zone::Kitchen, &DeviceId::new(name).unwrap());
            (0..50)
                .map(|step| sensor.sample(NOON.plus(STEP * step)))
                .collect::<Vec<_>>()
        };
        let original = first(Building::new(1), "device-001");
        assert_eq!(original, first(Building::new(1), "device-001"));
        assert_ne!(original, first(Building::new(2), "device-001"));
        assert_ne!(original, first(Building::new(1), "device-002"));
    }

    #[test]
    fn neighbouring_readings_resemble_each_other_and_distant_ones_follow_the_hour() {
        let flow = column(&readings(Zone::MainBuilding, 2_000), FLOW_RATE);
        assert!(correlation(&flow[1..], &flow[..1_999]) > 0.9);
        let mut sensor = sensor(Zone::MainBuilding, "device-001");
        let (mut evening, mut night) = (Vec::new(), Vec::new());
        for hour in 0..20 * 24 {
            let flow = sensor
                .sample(NOON.plus(Duration::from_secs(3_600) * hour))
                .get(FLOW_RATE)
                .unwrap();
            match hour % 24 {
                7 => evening.push(flow),
                15 => night.push(flow),
                _ => {}
            }
        }
        let (evening, night) = (mean(&evening), mean(&night));
        assert!(evening > night + 15.0, "{evening} and {night}");
    }

    #[test]
    fn readings_have_two_decimals_and_time_that_stands_still_is_harmless() {
        let mut sensor = sensor(Zone::PoolSpa, "device-002");
        for time in [NOON, NOON, NOON.minus(STEP), NOON.plus(STEP)] {
            let reading = sensor.sample(time);
            assert_eq!(reading.len(), 5);
            for (name, value) in reading.iter() {
                assert!(
                    (value * 100.0 - (value * 100.0).round()).abs() < 1e-6,
                    "{name}: {value}"
                );
            }
        }
    }
}
