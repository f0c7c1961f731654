//! What a publisher tells its caller, as events and as counts.

use crate::clock::AnswerRefused;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_envelope::id::Sequence;
use tidegate_envelope::reason::Reason;
use tokio::sync::mpsc;

/// Why a message was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full, and the policy chose this one ([`Overflow`](super::Overflow)).
    QueueFull,
    /// It waited longer than verifiers accept.
    TooOld,
}

/// Something that happened to the connection or to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker accepted the connection.
    Connected {
        /// Whether it still knew the session.
        resumed: bool,
    },
    /// The connection was ended because its TLS has changed
    /// ([`PublisherConfig::tls_changes`](super::PublisherConfig::tls_changes)); the next one comes
    /// at once.
    Reconnecting {
        /// Messages whose acknowledgement did not come in time; they are sent again.
        unacknowledged: usize,
    },
    /// The connection was lost or could not be made; the next attempt comes by itself.
    Disconnected {
        /// Where TLS is the cause: `tls_server_rejected` when the broker is not one of our CA, else
        /// why the broker refused our certificate.
        reason: Option<Reason>,
        /// The cause for people, with everything below it.
        detail: String,
        /// When the next attempt comes.
        retry_in: Duration,
    },
    /// The broker has taken the message; with the embedded broker: verified and durable.
    Acknowledged {
        /// Which message.
        sequence: Sequence,
        /// From the call of `publish` to now.
        after: Duration,
    },
    /// The gateway could not store the message (PUBACK 0x83); it is sent again.
    Postponed {
        /// Which message.
        sequence: Sequence,
        /// When, at the earliest.
        retry_in: Duration,
    },
    /// The broker refused the message with an MQTT 5 reason code; it is not sent again.
    Refused {
        /// Which message.
        sequence: Sequence,
        /// 0x87 not authorized, 0x97 quota exceeded, 0x99 payload format invalid, and others.
        code: u8,
    },
    /// The message was never sent, or was unacknowledged when it had to go.
    Dropped {
        /// Which message.
        sequence: Sequence,
        /// Why.
        why: Dropped,
    },
    /// The gateway said what time it is ([`TimeSource::Echo`](super::TimeSource::Echo)).
    TimeSet {
        /// How far that may be off either way.
        error: Duration,
    },
    /// An answer was not believed, and the time is what it was before.
    TimeRefused {
        /// Why.
        why: AnswerRefused,
    },
}

/// Totals since the publisher started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that the broker accepted.
    pub connected: u64,
    /// Connections lost or not made.
    pub disconnected: u64,
    /// Connections ended for a change of TLS.
    pub reconnecting: u64,
    /// Messages that the broker took.
    pub acknowledged: u64,
    /// Times that a message could not be stored.
    pub postponed: u64,
    /// Messages that it refused.
    pub refused: u64,
    /// Messages never sent.
    pub dropped: u64,
    /// Answers that set the time.
    pub time_set: u64,
    /// Answers that were not believed.
    pub time_refused: u64,
    /// Events that the caller did not fetch in time; the counts above include them.
    pub events_missed: u64,
}

/// The sending side: counts every event, and passes it on where there is room.
#[derive(Debug, Clone)]
pub(super) struct Events {
    sender: mpsc::Sender<Event>,
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    connected: AtomicU64,
    disconnected: AtomicU64,
    reconnecting: AtomicU64,
    acknowledged: AtomicU64,
    postponed: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    time_set: AtomicU64,
    time_refused: AtomicU64,
    missed: AtomicU64,
}

impl Events {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (
            Self {
                sender,
                totals: Arc::default(),
            },
            receiver,
        )
    }

    pub(super) fn emit(&self, event: Event) {
        let total = match event {
            Event::Connected { .. } => &self.totals.connected,
            Event::Disconnected { .. } => &self.totals.disconnected,
            Event::Reconnecting { .. } => &self.totals.reconnecting,
            Event::Acknowledged { .. } => &self.totals.acknowledged,
            Event::Postponed { .. } => &self.totals.postponed,
            Event::Refused { .. } => &self.totals.refused,
            Event::Dropped { .. } => &self.totals.dropped,
            Event::TimeSet { .. } => &self.totals.time_set,
            Event::TimeRefused { .. } => &self.totals.time_refused,
        };
        total.fetch_add(1, Ordering::Relaxed);
        // A caller that does not listen must not stop the publisher.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(event) {
            self.totals.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            connected: read(&self.totals.connected),
            disconnected: read(&self.totals.disconnected),
            reconnecting: read(&self.totals.reconnecting),
            acknowledged: read(&self.totals.acknowledged),
            postponed: read(&self.totals.postponed),
            refused: read(&self.totals.refused),
            dropped: read(&self.totals.dropped),
            time_set: read(&self.totals.time_set),
            time_refused: read(&self.totals.time_refused),
            events_missed: read(&self.totals.missed),
        }
    }
}
