//! How much water a zone draws at a time of day, in L/min.

use tidegate_envelope::id::ZoneId;
use tidegate_envelope::time::Timestamp;

const DAY_H: f64 = 24.0;

/// The zones of the building that differ in their demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Guest rooms: showers in the morning, and again in the evening.
    MainBuilding,
    /// Pool and spa: pumps that switch on and off, and a backwash before dawn.
    PoolSpa,
    /// Kitchen and laundry: breakfast, lunch and dinner.
    Kitchen,
}

impl Zone {
    /// The demand for a registry's zone; zones of other names behave as the main building.
    #[must_use]
    pub fn of(zone: &ZoneId) -> Self {
        match zone.as_str() {
            "pool_spa" => Self::PoolSpa,
            "kitchen" => Self::Kitchen,
            _ => Self::MainBuilding,
        }
    }

    /// Mean demand in L/min at a time, taking UTC as the building's time.
    pub(super) fn demand_lpm(self, at: Timestamp) -> f64 {
        let seconds = at.as_micros().rem_euclid(86_400_000_000) as f64 / 1e6;
        let hour = seconds / 3_600.0;
        match self {
            Self::MainBuilding => {
                23.0 + peak(hour, 7.5, 1.3, 27.0) + peak(hour, 13.0, 2.2, 9.0) + peak(hour, 19.5, 1.8, 23.0)
            }
            Self::PoolSpa => {
                let pump = cycle(seconds, 2_400.0, 1_500.0, 13.0);
                28.0 + pump + peak(hour, 4.0, 0.15, 8.0) + peak(hour, 16.0, 3.0, 7.0)
            }
            Self::Kitchen => {
                22.0 + peak(hour, 8.0, 0.9, 20.0) + peak(hour, 12.5, 0.9, 27.0) + peak(hour, 19.0, 1.2, 30.0)
            }
        }
    }
}

/// A bell around an hour, with the day as a circle.
fn peak(hour: f64, centre_h: f64, width_h: f64, height_lpm: f64) -> f64 {
    let apart = (hour - centre_h).abs();
    let distance_h = apart.min(DAY_H - apart);
    height_lpm * (-0.5 * (distance_h / width_h).powi(2)).exp()
}

/// A pump that runs for `on_s` of every `period_s`, speeding up and down within half a minute.
fn cycle(seconds: f64, period_s: f64, on_s: f64, height_lpm: f64) -> f64 {
    const RAMP_S: f64 = 15.0;
    let phase_s = seconds % period_s;
    let step = |at_s: f64| 1.0 / (1.0 + (-(phase_s - at_s) / (RAMP_S / 3.0)).exp());
    height_lpm * (step(RAMP_S) - step(on_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: f64) -> Timestamp {
        Timestamp::from_micros((hour * 3_600e6) as i64)
    }

    #[test]
    fn zones_peak_when_people_use_them() {
        let demand = |zone: Zone, hour| zone.demand_lpm(at(hour));
        for (zone, busy, quiet) in [
            (Zone::MainBuilding, 7.5, 3.0),
            (Zone::MainBuilding, 19.5, 23.9),
            (Zone::Kitchen, 12.5, 3.0),
            (Zone::Kitchen, 19.0, 15.5),
        ] {
            assert!(
                demand(zone, busy) > demand(zone, quiet) + 15.0,
                "{zone:?} at {busy}"
            );
        }
        // The pump of the pool runs 25 of 40 minutes.
        assert!(demand(Zone::PoolSpa, 0.2) > demand(Zone::PoolSpa, 0.55) + 12.0);
    }

    #[test]
    fn midnight_is_no_step() {
        for zone in [Zone::MainBuilding, Zone::Kitchen] {
            let step = zone.demand_lpm(at(23.999)) - zone.demand_lpm(at(24.001));
            assert!(step.abs() < 0.1, "{zone:?}: {step}");
        }
    }

    #[test]
    fn unknown_zone_behaves_as_the_main_building() {
        assert_eq!(Zone::of(&ZoneId::new("kitchen").unwrap()), Zone::Kitchen);
        assert_eq!(Zone::of(&ZoneId::new("roof").unwrap()), Zone::MainBuilding);
    }
}
