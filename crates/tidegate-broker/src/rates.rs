//! How often one principal may connect.
//!
//! A device in a restart loop, or whoever stole its certificate, would otherwise make the broker
//! open and close sessions as fast as it can shake hands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_envelope::principal::Principal;
use tokio::time::Instant;

/// Principals that are told apart at one time. Only the CA makes new ones, and each is forgotten
/// after a second's quiet or so; beyond this number nobody further is counted.
const MAX_PRINCIPALS: usize = 65_536;

/// Counts CONNECTs by principal.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Until when each principal's past CONNECTs count, as if they had come at the steady rate
    /// (the generic cell rate algorithm: a leaky bucket that keeps one instant, ITU-T I.371).
    busy_until: Mutex<HashMap<Arc<Principal>, Instant>>,
    /// Time that one CONNECT counts for.
    each: Duration,
    burst: Duration,
}

impl Rates {
    /// `per_second` in the long run, and `burst` at once; neither is less than 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            busy_until: Mutex::default(),
            each,
            burst: each.saturating_mul(burst.max(1)),
        }
    }

    /// Whether this principal may connect once more. Clients that prove nothing are not told
    /// apart, and pass.
    pub(crate) fn admits(&self, principal: &Arc<Principal>) -> bool {
        if !matches!(**principal, Principal::Certificate { .. }) {
            return true;
        }
        let now = Instant::now();
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        if busy_until.len() >= MAX_PRINCIPALS && !busy_until.contains_key(principal) {
            return true;
        }
        let until = busy_until.entry(Arc::clone(principal)).or_insert(now);
        let next = (*until).max(now) + self.each;
        let admitted = next <= now + self.burst;
        if admitted {
            *until = next;
        }
        admitted
    }

    /// Forgets the principals whose CONNECTs count no more.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        busy_until.retain(|_, until| *until > now);
        if busy_until.capacity() > busy_until.len().saturating_mul(4) {
            busy_until.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_envelope::id::DeviceId;
    use tidegate_envelope::principal::Role;

    fn device(id: &str) -> Arc<Principal> {
        Arc::new(Principal::Certificate {
            id: DeviceId::new(id).unwrap(),
            role: Role::Device,
        })
    }

    fn admitted(rates: &Rates, who: &Arc<Principal>) -> usize {
        (0..100).filter(|_| rates.admits(who)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_steady_rate_while_others_are_free() {
        let rates = Rates::new(2, 5);
        assert_eq!(admitted(&rates, &device("a")), 5);
        assert_eq!(admitted(&rates, &device("b")), 5);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&rates, &device("a")), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            admitted(&rates, &device("a")),
            5,
            "quiet does not add up beyond the burst"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_prove_nothing_are_not_counted() {
        let rates = Rates::new(1, 1);
        assert_eq!(admitted(&rates, &Arc::new(Principal::Anonymous)), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_principal_is_forgotten_and_a_busy_one_is_not() {
        let rates = Rates::new(1, 3);
        admitted(&rates, &device("busy"));
        rates.admits(&device("quiet"));
        tokio::time::advance(Duration::from_secs(2)).await;
        rates.sweep();
        assert_eq!(rates.busy_until.lock().unwrap().len(), 1);
        assert_eq!(admitted(&rates, &device("busy")), 2);
    }
}
