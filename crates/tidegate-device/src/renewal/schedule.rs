//! When a certificate is renewed, and when it is tried again.

use crate::publisher::backoff::Backoff;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::CertificateInfo;
use tokio::time::Instant;

/// Wait after the first failure, at most.
pub const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Longest wait of our own; a gateway may ask for a longer one.
pub const LONGEST_RETRY: Duration = Duration::from_secs(60 * 60);

/// Renewal comes up to this part of the certificate's life before two thirds of it, at random:
/// devices that were enrolled together do not all come together.
const EARLIER: f64 = 1.0 / 20.0;
/// As long as the certificate is valid, there are this many attempts in the rest of its life.
const ATTEMPTS_LEFT: u32 = 8;

/// Due by the device's clock, and held back by the monotonic one after a failure.
#[derive(Debug)]
pub(super) struct Schedule {
    due: Timestamp,
    not_after: Timestamp,
    held_until: Option<Instant>,
    backoff: Backoff,
    random: StdRng,
}

impl Schedule {
    pub(super) fn new(certificate: &CertificateInfo, random: StdRng) -> Self {
        let mut schedule = Self {
            due: certificate.not_before,
            not_after: certificate.not_after,
            held_until: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            random,
        };
        schedule.restart(certificate);
        schedule
    }

    /// For a new certificate.
    pub(super) fn restart(&mut self, certificate: &CertificateInfo) {
        let life = certificate.not_after.since(certificate.not_before);
        let share = 2.0 / 3.0 - EARLIER * self.random.random_range(0.0..1.0);
        self.due = certificate.not_before.plus(life.mul_f64(share));
        self.not_after = certificate.not_after;
        self.held_until = None;
        self.backoff.reset();
    }

    /// After a renewal: one that is due again at once, because the gateway gives out certificates
    /// of no life to speak of, does not keep the gateway busy.
    pub(super) fn renewed(&mut self, instant: Instant) {
        self.held_until = Some(instant + FIRST_RETRY);
    }

    /// When the certificate is to be renewed.
    pub(super) const fn due(&self) -> Timestamp {
        self.due
    }

    pub(super) fn is_due(&self, now: Timestamp, instant: Instant) -> bool {
        self.wait(now, instant).is_zero()
    }

    /// Until the next attempt.
    pub(super) fn wait(&self, now: Timestamp, instant: Instant) -> Duration {
        let held = self
            .held_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(instant));
        self.due.since(now).max(held)
    }

    /// Holds back the next attempt, and says for how long.
    ///
    /// The less is left of the certificate's life, the shorter, so that it does not end between two
    /// attempts; once it has ended there is no hurry. `asked` is what the gateway asks for.
    pub(super) fn failed(&mut self, asked: Option<Duration>, now: Timestamp, instant: Instant) -> Duration {
        let own = self.backoff.next_wait(&mut self.random);
        let left = self.not_after.since(now);
        let wait = match asked {
            // A gateway that asks for more than there is does not know of this device's end.
            Some(asked) if left.is_zero() => asked.max(own),
            Some(asked) => asked.max(own).min((left / 2).max(FIRST_RETRY)),
            None if left.is_zero() => own,
            None => own.min((left / ATTEMPTS_LEFT).max(FIRST_RETRY)),
        };
        self.held_until = Some(instant + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::path::Path;
    use tidegate_envelope::id::DeviceId;
    use tidegate_pki::authority::Authority;
    use tidegate_pki::inspect;
    use tidegate_pki::profile::Profile;

    const START: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);
    const LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

    fn certificate(life: Duration) -> CertificateInfo {
        let authority = Authority::generate(START).unwrap();
        let profile = Profile::device(DeviceId::new("device-001").unwrap()).between(START, START.plus(life));
        let pem = authority.issue(&profile, START).unwrap().certificate_pem;
        inspect::from_pem(&pem, Path::new("test")).unwrap()
    }

    fn schedule(life: Duration) -> Schedule {
        Schedule::new(&certificate(life), StdRng::seed_from_u64(4))
    }

    #[test]
    fn renewal_is_due_shortly_before_two_thirds_of_life_and_differs_between_devices() {
        let certificate = certificate(LIFE);
        let latest = START.plus(LIFE.mul_f64(2.0 / 3.0));
        let dues: Vec<_> = (0..20)
            .map(|seed| Schedule::new(&certificate, StdRng::seed_from_u64(seed)).due())
            .collect();
        for due in &dues {
            assert!(*due <= latest && latest.since(*due) <= LIFE / 20, "{due}");
        }
        let first = dues.iter().min().unwrap();
        assert!(dues.iter().max().unwrap().since(*first) > LIFE / 60);
    }

    #[test]
    fn nothing_is_due_a_moment_before_and_everything_from_then_on() {
        let (schedule, instant) = (schedule(LIFE), Instant::now());
        let moment = Duration::from_micros(1);
        assert!(!schedule.is_due(schedule.due().minus(moment), instant));
        assert!(schedule.is_due(schedule.due(), instant));
        assert!(schedule.is_due(START.plus(2 * LIFE), instant));
    }

    #[test]
    fn failures_hold_the_next_attempt_back_longer_each_time() {
        let (mut schedule, mut instant) = (schedule(LIFE), Instant::now());
        let now = schedule.due();
        let mut longest = FIRST_RETRY;
        for _ in 0..9 {
            let wait = schedule.failed(None, now, instant);
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
            assert!(!schedule.is_due(now, instant + wait - Duration::from_millis(1)));
            instant += wait;
            assert!(schedule.is_due(now, instant));
            longest = (longest * 2).min(LONGEST_RETRY);
        }
    }

    #[test]
    fn attempts_come_often_enough_before_the_end() {
        let mut schedule = schedule(LIFE);
        let instant = Instant::now();
        for _ in 0..12 {
            schedule.failed(None, schedule.due(), instant);
        }
        let wait = schedule.failed(None, START.plus(LIFE - HOUR), instant);
        assert!(wait <= HOUR / 8, "{wait:?}");
        let wait = schedule.failed(None, START.plus(LIFE - Duration::from_secs(1)), instant);
        assert_eq!(wait, FIRST_RETRY);
        let wait = schedule.failed(None, START.plus(LIFE + HOUR), instant);
        assert!(wait >= LONGEST_RETRY / 2, "{wait:?}");
    }

    #[test]
    fn wait_that_the_gateway_asks_for_is_kept_but_not_beyond_half_of_what_is_left() {
        let mut schedule = schedule(LIFE);
        let instant = Instant::now();
        let asked = Some(5 * HOUR);
        assert_eq!(schedule.failed(asked, schedule.due(), instant), 5 * HOUR);
        let late = START.plus(LIFE - 4 * HOUR);
        assert_eq!(schedule.failed(asked, late, instant), 2 * HOUR);
    }

    #[test]
    fn new_certificate_ends_the_holding_back_but_for_a_short_while_after_a_renewal() {
        let mut schedule = schedule(LIFE);
        let instant = Instant::now();
        schedule.failed(None, schedule.due(), instant);
        schedule.restart(&certificate(2 * LIFE));
        assert!(schedule.is_due(schedule.due(), instant));
        schedule.renewed(instant);
        assert!(!schedule.is_due(schedule.due(), instant));
        assert!(schedule.is_due(schedule.due(), instant + FIRST_RETRY));
        assert!(schedule.due() > START.plus(LIFE));
    }
}
