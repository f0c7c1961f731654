//! Clocks that are wrong: off by a span, and too fast or too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// The true time when a simulation starts: 2026-02-19T03:35:05Z.
const START: Timestamp = Timestamp::from_micros(1_771_472_105_000_000);

/// The clock of one host. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<Error>);

#[derive(Debug, Default)]
struct Error {
    offset_us: AtomicI64,
    drift_ppm: AtomicI64,
}

/// The true time after so much of a simulation.
pub(super) fn true_time(elapsed: Duration) -> Timestamp {
    START.plus(elapsed)
}

/// How much of the simulation is over. Only on a simulated host.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().expect("it is asked on a simulated host only")
}

impl Clock {
    /// Sets how wrong the clock is from now on.
    pub(super) fn set(&self, offset_us: i64, drift_ppm: i64) {
        self.0.offset_us.store(offset_us, Ordering::Relaxed);
        self.0.drift_ppm.store(drift_ppm, Ordering::Relaxed);
    }

    /// What the clock shows. Only on a simulated host.
    pub(super) fn now(&self) -> Timestamp {
        let right = true_time(elapsed()).as_micros();
        let run_us = right - START.as_micros();
        let drift_us = run_us * self.0.drift_ppm.load(Ordering::Relaxed) / 1_000_000;
        Timestamp::from_micros(right + self.0.offset_us.load(Ordering::Relaxed) + drift_us)
    }
}
