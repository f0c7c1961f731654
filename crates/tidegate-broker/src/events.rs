//! Security events, thinned out so that a flood of one kind cannot drown the others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_envelope::reason::Reason;
use tokio::time::Instant;

use crate::gate::{SecurityEvent, SharedGate};

/// Events of one reason from one source that pass in a window.
const BURST: u32 = 16;

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);

/// Sources that are told apart at one time; those beyond share one count per reason.
const MAX_SOURCES: usize = 1_024;

/// Longest detail of an event, in bytes; clients have a say in it.
const MAX_DETAIL_BYTES: usize = 256;

/// Hands events to the gate.
pub(crate) struct Reporter {
    gate: Arc<dyn SharedGate>,
    sources: Mutex<HashMap<Source, Window>>,
    hasher: RandomState,
}

/// Address, reason, and hash of the principal: a device behind the same address has its own count.
type Source = (Option<IpAddr>, Reason, u64);

struct Window {
    since: Instant,
    passed: u32,
    left_out: u64,
    /// The last event that was left out: the summary is told in its words.
    sample: Option<SecurityEvent>,
}

impl Reporter {
    pub(crate) fn new(gate: Arc<dyn SharedGate>) -> Self {
        Self {
            gate,
            sources: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Tells the gate, or counts the event for the next summary.
    pub(crate) fn report(&self, mut event: SecurityEvent) {
        if event.detail.len() > MAX_DETAIL_BYTES {
            let end = event.detail.floor_char_boundary(MAX_DETAIL_BYTES);
            event.detail.truncate(end);
        }
        tracing::debug!(reason = %event.reason, peer = %event.peer, detail = event.detail, "security event");
        let who = event
            .principal
            .as_ref()
            .map_or(0, |principal| self.hasher.hash_one(principal));
        let now = Instant::now();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (Some(event.peer.ip()), event.reason, who);
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&key) {
            key = (None, event.reason, 0);
        }
        let fresh = || Window {
            since: now,
            passed: 0,
            left_out: 0,
            sample: None,
        };
        let window = sources.entry(key).or_insert_with(fresh);
        if window.left_out == 0 && now.duration_since(window.since) >= WINDOW {
            *window = fresh();
        }
        if window.passed >= BURST {
            window.left_out += 1;
            window.sample = Some(event);
            return;
        }
        window.passed += 1;
        drop(sources);
        self.gate.observe(event);
    }

    /// Closes windows that are over, and tells what was left out in them.
    pub(crate) fn summarize(&self) {
        let now = Instant::now();
        let mut summaries = Vec::new();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, window| {
            let over = now.duration_since(window.since) >= WINDOW;
            if let Some(mut event) = window.sample.take_if(|_| over) {
                event.left_out = window.left_out - 1;
                summaries.push(event);
            }
            !over
        });
        drop(sources);
        for event in summaries {
            self.gate.observe(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Admission, Disposition, Incoming};

    #[derive(Default)]
    struct Seen(Mutex<Vec<SecurityEvent>>);

    impl SharedGate for Seen {
        fn admit(self: Arc<Self>, _: Incoming) -> Admission {
            Box::pin(async { Disposition::Deliver })
        }

        fn observe(&self, event: SecurityEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn event(address: [u8; 4]) -> SecurityEvent {
        SecurityEvent {
            reason: Reason::MqttMalformed,
            principal: None,
            client_id: None,
            peer: (address, 1).into(),
            topic: None,
            detail: "é".repeat(MAX_DETAIL_BYTES),
            left_out: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_another_source_still_heard() {
        let seen = Arc::new(Seen::default());
        let reporter = Reporter::new(seen.clone());
        for _ in 0..100 {
            reporter.report(event([10, 0, 0, 1]));
        }
        reporter.report(event([10, 0, 0, 2]));
        assert_eq!(seen.0.lock().unwrap().len(), BURST as usize + 1);
        tokio::time::advance(WINDOW).await;
        reporter.summarize();
        let heard: u64 = seen
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|event| 1 + event.left_out)
            .sum();
        assert_eq!(heard, 101);
    }

    #[tokio::test(start_paused = true)]
    async fn many_sources_share_one_count_instead_of_memory() {
        let reporter = Reporter::new(Arc::new(Seen::default()));
        for number in 0..4_000_u16 {
            let [high, low] = number.to_be_bytes();
            reporter.report(event([10, 0, high, low]));
        }
        assert!(reporter.sources.lock().unwrap().len() <= MAX_SOURCES + Reason::ALL.len());
    }
}
