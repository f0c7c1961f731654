//! The journal: gives each event its number, shows it at once, and has it kept.

use super::gate::Candidate;
use std::sync::Arc;
use tidegate_serve::hub::Hub;
use tidegate_store::event::{Event, EventIds, Outcome};
use tidegate_store::recorder::Recorder;
use tokio::sync::mpsc;

/// The way for every event to the page and to the database.
#[derive(Clone)]
pub(crate) struct Journal {
    hub: Hub,
    ids: EventIds,
    recorder: Recorder,
    wake: mpsc::WeakSender<Candidate>,
}

impl Journal {
    pub(super) fn new(hub: Hub, recorder: Recorder, gate: &mpsc::Sender<Candidate>) -> Self {
        // A weak sender: the gate thread holds a journal itself, and must see its channel close.
        Self {
            hub,
            ids: recorder.ids(),
            recorder,
            wake: gate.downgrade(),
        }
    }

    /// Says to whoever asks for readiness whether the database can be written.
    pub(super) fn storage_available(&self, available: bool) {
        self.hub.storage_available(available);
    }

    /// Shows an event, and has it kept unless it is an accepted reading, which the store has already.
    pub(crate) fn publish(&self, event: Event) {
        let mut event = event.clean();
        if event.outcome == Outcome::Accepted {
            self.hub.publish(Arc::new(event));
            return;
        }
        event.id = self.ids.next();
        self.hub.publish(Arc::new(event.clone()));
        self.recorder.record(event);
        // A full channel needs no wake-up: the gate thread is on its way.
        if let Some(gate) = self.wake.upgrade() {
            drop(gate.try_send(Candidate::Wake));
        }
    }
}
