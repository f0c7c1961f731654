//! How long to wait before the next attempt to connect: twice as long each time, with jitter.

use rand::{Rng, RngExt};
use std::time::Duration;

/// Wait after the first failure, at most.
pub const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A connection that lasted this long ends the series of failures.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The waits of one series of failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST_WAIT, LONGEST_WAIT)
    }
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// The next wait: random between half and all of the first times a power of two, so that
    /// devices which lost one broker together do not all come back at once.
    pub(crate) fn next_wait(&mut self, random: &mut impl Rng) -> Duration {
        let longest = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_reset() {
        let (mut backoff, mut random) = (Backoff::default(), StdRng::seed_from_u64(3));
        for expected_ms in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let wait = backoff.next_wait(&mut random);
            let longest = Duration::from_millis(expected_ms);
            assert!(wait <= longest && wait >= longest / 2, "{wait:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut random) <= FIRST_WAIT);
    }
}
