//! The events that are shown: those that wait for the next frame, and the recent ones after it.

use crate::protocol::EventView;
use crate::view::got_in;
use std::collections::VecDeque;
use std::sync::Arc;
use tidegate_store::event::{Event, Outcome};

/// Kinds of events with bounds of their own, so that a flood of one hides no other.
const KINDS: usize = 3;
/// Events in one frame: flagged, got in and notices; blocked; accepted.
const PER_FRAME: [usize; KINDS] = [200, 200, 20];
/// Events in memory for new readers, in the same order.
const KEPT: [usize; KINDS] = [400, 600, 60];

/// Events since the last frame.
#[derive(Default)]
pub(crate) struct Pending {
    events: [Vec<Arc<Event>>; KINDS],
    dropped: u32,
    /// The highest id that was in a frame, or left out of one.
    framed: Option<i64>,
    /// The highest id since, and how many there were.
    highest: i64,
    numbered: i64,
    held: bool,
}

/// What goes into a frame.
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// Left out because they were too many.
    pub(crate) dropped: u32,
    /// The highest id so far.
    pub(crate) last_id: i64,
}

impl Pending {
    /// A start after the event `last_id`, where one is known.
    pub(crate) fn after(last_id: Option<i64>) -> Self {
        Self {
            framed: last_id,
            ..Self::default()
        }
    }

    /// Takes in an event, or counts it where there are too many of its kind.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        if event.id > self.framed.unwrap_or(0) {
            self.highest = self.highest.max(event.id);
            self.numbered += 1;
        }
        let kind = kind(&event);
        if self.events[kind].len() < PER_FRAME[kind] {
            self.events[kind].push(event);
        } else if event.outcome != Outcome::Accepted {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// The events for the next frame, oldest first.
    ///
    /// Threads number events before they publish them, so one may be on its way while a later one
    /// is here. Then all wait one frame: ids ascend from frame to frame, and a reader that
    /// resumes after the last id it saw misses nothing. An id that does not come is not waited
    /// for again.
    pub(crate) fn take(&mut self) -> Batch {
        let complete = self.numbered == 0
            || self
                .framed
                .is_none_or(|framed| self.highest - framed <= self.numbered);
        let sample = std::mem::take(&mut self.events[KINDS - 1]);
        if !complete && !self.held {
            self.held = true;
            return Batch {
                events: sample,
                dropped: 0,
                last_id: self.framed.unwrap_or(0),
            };
        }
        if self.numbered > 0 {
            self.framed = Some(self.highest);
        }
        self.highest = 0;
        self.numbered = 0;
        self.held = false;
        let mut events = sample;
        events.append(&mut self.events[0]);
        events.append(&mut self.events[1]);
        events.sort_by_key(|event| (event.at, event.id));
        Batch {
            events,
            dropped: std::mem::take(&mut self.dropped),
            last_id: self.framed.unwrap_or(0),
        }
    }
}

/// Events that were in frames, the newest of each kind.
#[derive(Default)]
pub(crate) struct Recent {
    kept: [VecDeque<Arc<EventView>>; KINDS],
    /// Every event up to this id that is not here was pushed out or left out.
    whole_after: i64,
}

impl Recent {
    /// A memory that knows of no event up to `last_id`.
    pub(crate) fn after(last_id: i64) -> Self {
        Self {
            whole_after: last_id,
            ..Self::default()
        }
    }

    pub(crate) fn push(&mut self, event: &Event, view: Arc<EventView>) {
        let kind = kind(event);
        let kept = &mut self.kept[kind];
        if kept.len() == KEPT[kind]
            && let Some(oldest) = kept.pop_front()
        {
            self.whole_after = self.whole_after.max(oldest.id);
        }
        kept.push_back(view);
    }

    /// Notes that events up to `last_id` were left out.
    pub(crate) fn leave_out_up_to(&mut self, last_id: i64) {
        self.whole_after = self.whole_after.max(last_id);
    }

    /// Whether every event after `id` is here.
    pub(crate) fn reaches(&self, id: i64) -> bool {
        id >= self.whole_after
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<EventView>> {
        self.kept.iter().flatten().cloned().collect()
    }
}

fn kind(event: &Event) -> usize {
    match event.outcome {
        Outcome::Accepted if !got_in(event) => 2,
        Outcome::Blocked => 1,
        Outcome::Accepted | Outcome::Flagged | Outcome::Notice => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_envelope::time::Timestamp;

    fn event(outcome: Outcome, id: i64) -> Arc<Event> {
        let mut event = Event::new(Timestamp::from_micros(id), outcome, None);
        event.id = id;
        Arc::new(event)
    }

    fn ids(batch: &Batch) -> Vec<i64> {
        batch.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn event_on_its_way_is_waited_for_and_comes_in_order() {
        let mut pending = Pending::after(Some(10));
        pending.push(event(Outcome::Blocked, 12));
        let batch = pending.take();
        assert_eq!((ids(&batch), batch.last_id), (vec![], 10));
        pending.push(event(Outcome::Blocked, 11));
        let batch = pending.take();
        assert_eq!((ids(&batch), batch.last_id), (vec![11, 12], 12));
    }

    #[test]
    fn id_that_never_comes_is_waited_for_once() {
        let mut pending = Pending::after(Some(10));
        pending.push(event(Outcome::Blocked, 12));
        pending.take();
        assert_eq!(ids(&pending.take()), [12]);
        pending.push(event(Outcome::Blocked, 13));
        assert_eq!(ids(&pending.take()), [13]);
    }

    #[test]
    fn flood_of_blocked_hides_no_flagged_and_is_counted() {
        let mut pending = Pending::after(Some(0));
        for id in 1..=1_000 {
            pending.push(event(Outcome::Blocked, id));
        }
        pending.push(event(Outcome::Flagged, 1_001));
        let batch = pending.take();
        assert_eq!(
            (batch.events.len(), batch.dropped, batch.last_id),
            (201, 800, 1_001)
        );
        assert_eq!(batch.events.last().unwrap().outcome, Outcome::Flagged);
    }

    #[test]
    fn memory_says_how_far_back_it_is_whole() {
        let mut recent = Recent::after(4);
        assert!(recent.reaches(4) && !recent.reaches(3));
        for id in 5..=5 + KEPT[1] as i64 {
            let event = event(Outcome::Blocked, id);
            recent.push(&event, Arc::new(crate::view::event_view(&event, 0)));
        }
        assert!(recent.reaches(5) && !recent.reaches(4));
        assert_eq!(recent.all().len(), KEPT[1]);
    }
}
