//! The journal: gives each event its number, shows it at once, and has it kept.

use super::gate::Candidate;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_serve::hub::Hub;
use tidegate_store::event::{Event, EventIds, Outcome};
use tokio::sync::mpsc;

/// Events that wait to be written. A flood of refused messages fills it and is then only counted.
const RECORD_QUEUE: usize = 16_384;

/// The way for every event to the page and to the database.
#[derive(Clone)]
pub(crate) struct Journal {
    hub: Hub,
    ids: EventIds,
    records: mpsc::Sender<Arc<Event>>,
    wake: mpsc::WeakSender<Candidate>,
    dropped: Arc<AtomicU64>,
}

impl Journal {
    /// A journal, and the events that the gate thread is to write.
    pub(super) fn new(
        hub: Hub,
        ids: EventIds,
        gate: mpsc::Sender<Candidate>,
    ) -> (Self, mpsc::Receiver<Arc<Event>>) {
        let (records, receiver) = mpsc::channel(RECORD_QUEUE);
        // A weak sender: the gate thread holds a journal itself, and must see its channel close.
        let wake = gate.downgrade();
        (Self { hub, ids, records, wake, dropped: Arc::default() }, receiver)
    }

    /// Shows an event, and has it kept unless it is an accepted reading, which the store has already.
    pub(crate) fn publish(&self, mut event: Event) {
        let kept = event.outcome != Outcome::Accepted;
        if kept {
            event.id = self.ids.next();
        }
        let event = Arc::new(event);
        self.hub.publish(Arc::clone(&event));
        if !kept {
            return;
        }
        if self.records.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A full channel needs no wake-up: the gate thread is on its way.
        if let Some(gate) = self.wake.upgrade() {
            drop(gate.try_send(Candidate::Wake));
        }
    }

    /// How many events were shown but not kept since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}
