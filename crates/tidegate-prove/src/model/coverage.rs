//! Which verdicts the exploration has met, and how often: a claim about what was never reached is
//! no claim.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an exploration has to meet.
pub(super) const MUST_BE_REACHED: [&str; 13] = [
    "accepted",
    "duplicate",
    "replay",
    "stale",
    "future",
    "cold_start",
    "out_of_order",
    "seq_conflict",
    "key_retired",
    "storage_unavailable",
    "gap",
    "publisher_restart",
    "clock_rollback",
];

/// Counts by name.
#[derive(Debug, Default)]
pub(super) struct Coverage([AtomicU64; MUST_BE_REACHED.len()]);

impl Coverage {
    /// Counts `what`; other names than the above are left out.
    pub(super) fn reach(&self, what: &str) {
        if let Some(place) = place(what) {
            self.0[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often `what` was met.
    pub(super) fn times(&self, what: &str) -> u64 {
        place(what).map_or(0, |place| self.0[place].load(Ordering::Relaxed))
    }

    /// All names with their counts.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        MUST_BE_REACHED.into_iter().map(|what| (what, self.times(what)))
    }
}

fn place(what: &str) -> Option<usize> {
    MUST_BE_REACHED.iter().position(|name| *name == what)
}
