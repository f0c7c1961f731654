//! Takes events from any thread: all are counted, a bounded number is kept for writing.
//!
//! Somebody who sends a million forged messages must not fill the disk, and must not drown the one
//! other event that matters. So rows are limited per second and per reason, while counts are exact.

use crate::event::{Event, EventIds, Outcome};
use crate::totals::Totals;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_envelope::reason::Reason;

/// Most events that wait to be written.
pub const MAX_WAITING_EVENTS: usize = 4_096;
/// Rows per second of one outcome and reason, unless the options say otherwise.
pub const DEFAULT_ROWS_PER_SECOND: u32 = 50;
/// An event whose time lies so far before its second's window starts a new one: the clock was set
/// back, and waiting for it to catch up would mean keeping nothing until then.
const MAX_DISORDER_SECONDS: i64 = 5;

/// A handle to the buffer of events of one [`Store`](crate::writer::Store); clones share it.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Mutex<Waiting>>,
    ids: EventIds,
}

/// What waits to be written.
#[derive(Debug)]
struct Waiting {
    events: VecDeque<Event>,
    counted: Totals,
    windows: Windows,
    dropped: u64,
}

/// Taken out of the buffer by the writer; goes back with a failed commit.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: VecDeque<Event>,
    pub(crate) counted: Totals,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.counted.is_empty()
    }
}

impl Recorder {
    pub(crate) fn new(ids: EventIds, rows_per_second: u32) -> Self {
        let waiting = Waiting {
            events: VecDeque::new(),
            counted: Totals::default(),
            windows: Windows::new(rows_per_second),
            dropped: 0,
        };
        Self {
            shared: Arc::new(Mutex::new(waiting)),
            ids,
        }
    }

    /// Counts `event` and keeps it for writing, unless its reason has had its rows for this second
    /// or the buffer is full. Accepted events are neither counted nor kept: the commit of their
    /// reading does both. An event without a number gets one.
    ///
    /// It is durable after the next [`commit`](tidegate_verify::log::ReplayLog::commit) or
    /// [`flush`](crate::writer::Store::flush). A crash before that loses it: nothing that was
    /// refused needs to be remembered for safety.
    pub fn record(&self, event: Event) {
        if event.outcome == Outcome::Accepted {
            return;
        }
        let mut waiting = self.lock();
        waiting.counted.add(event.outcome, event.reason, 1);
        let within_limit = waiting.windows.take(&event);
        if !within_limit || waiting.events.len() >= MAX_WAITING_EVENTS {
            waiting.dropped += 1;
            return;
        }
        let mut event = event.clean();
        if event.id <= 0 {
            event.id = self.ids.next();
        }
        waiting.events.push_back(event);
    }

    /// The numbers of events, shared with this buffer.
    #[must_use]
    pub fn ids(&self) -> EventIds {
        self.ids.clone()
    }

    /// How many events were counted without being kept, since opening.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Takes all that waits.
    pub(crate) fn take(&self) -> Batch {
        let mut waiting = self.lock();
        Batch {
            events: std::mem::take(&mut waiting.events),
            counted: std::mem::take(&mut waiting.counted),
        }
    }

    /// Puts back what could not be written, before all that came since; the newest make room.
    pub(crate) fn put_back(&self, batch: Batch) {
        let mut waiting = self.lock();
        waiting.counted.merge(&batch.counted);
        let newer = std::mem::replace(&mut waiting.events, batch.events);
        let room = MAX_WAITING_EVENTS.saturating_sub(waiting.events.len());
        waiting.dropped += newer.len().saturating_sub(room) as u64;
        waiting.events.extend(newer.into_iter().take(room));
    }

    /// A thread that panicked while holding the lock left counts and queue whole: no operation
    /// above can stop halfway.
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows of the current second, by outcome and reason.
#[derive(Debug)]
struct Windows {
    rows_per_second: u32,
    by_kind: Vec<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    second: i64,
    rows: u32,
}

impl Windows {
    fn new(rows_per_second: u32) -> Self {
        let kinds = Outcome::ALL.len() * (Reason::ALL.len() + 1);
        let empty = Window {
            second: i64::MIN,
            rows: 0,
        };
        Self {
            rows_per_second,
            by_kind: vec![empty; kinds],
        }
    }

    /// Whether one more row of this kind is allowed in this second.
    fn take(&mut self, event: &Event) -> bool {
        let second = event.at.as_micros().div_euclid(1_000_000);
        let reason = event.reason.map_or(0, |reason| reason as usize + 1);
        let window = &mut self.by_kind[event.outcome as usize * (Reason::ALL.len() + 1) + reason];
        if second > window.second || second < window.second.saturating_sub(MAX_DISORDER_SECONDS) {
            *window = Window { second, rows: 0 };
        }
        let allowed = window.rows < self.rows_per_second;
        window.rows += u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_envelope::time::Timestamp;

    fn blocked(at_ms: i64, reason: Reason) -> Event {
        Event::new(
            Timestamp::from_micros(at_ms * 1_000),
            Outcome::Blocked,
            Some(reason),
        )
    }

    fn recorder() -> Recorder {
        Recorder::new(EventIds::starting_at(1), 3)
    }

    #[test]
    fn flood_of_one_reason_is_counted_and_leaves_room_for_another() {
        let recorder = recorder();
        for _ in 0..100 {
            recorder.record(blocked(0, Reason::BadMac));
        }
        recorder.record(blocked(500, Reason::IdentityMismatch));
        recorder.record(blocked(1_000, Reason::BadMac));
        let batch = recorder.take();
        assert_eq!(batch.events.len(), 3 + 1 + 1);
        assert_eq!(batch.counted.count(Outcome::Blocked, Some(Reason::BadMac)), 101);
        assert_eq!(recorder.dropped(), 97);
    }

    #[test]
    fn clock_set_back_starts_a_new_second() {
        let recorder = recorder();
        for at_ms in [100_000, 100_001, 100_002, 100_003, 97_000, 40_000] {
            recorder.record(blocked(at_ms, Reason::BadMac));
        }
        // The fourth and the slightly late one are over the limit of their second.
        assert_eq!(recorder.take().events.len(), 4);
    }

    #[test]
    fn accepted_events_are_left_to_the_commit() {
        let recorder = recorder();
        recorder.record(Event::new(Timestamp::from_micros(0), Outcome::Accepted, None));
        assert!(recorder.take().is_empty());
    }

    #[test]
    fn events_put_back_come_first_and_stay_within_the_bound() {
        let recorder = Recorder::new(EventIds::starting_at(1), u32::MAX);
        for at_ms in 0..3_000 {
            recorder.record(blocked(at_ms, Reason::BadMac));
        }
        let batch = recorder.take();
        for at_ms in 3_000..6_000 {
            recorder.record(blocked(at_ms, Reason::BadMac));
        }
        recorder.put_back(batch);
        let batch = recorder.take();
        let ids: Vec<i64> = batch.events.iter().map(|event| event.id).collect();
        assert_eq!(ids, (1..=MAX_WAITING_EVENTS as i64).collect::<Vec<_>>());
        assert_eq!(batch.counted.of(Outcome::Blocked), 6_000);
        assert_eq!(recorder.dropped(), 6_000 - MAX_WAITING_EVENTS as u64);
    }
}
