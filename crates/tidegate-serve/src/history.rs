//! Questions to the database: off the async threads, and one at a time.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reason::Reason;
use tidegate_store::error::StoreError;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::reader::{self, Order, Reader};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Which events to read: the newest that fit, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventQuery {
    /// Only events after this id.
    pub(crate) after: Option<i64>,
    /// Only events before this id.
    pub(crate) before: Option<i64>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) reason: Option<Reason>,
    pub(crate) device: Option<DeviceId>,
    /// So many at most.
    pub(crate) limit: u32,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The database, shared by all handlers.
#[derive(Clone)]
pub(crate) struct History {
    reader: Arc<Mutex<Reader>>,
    /// Waiting here costs no thread; waiting for the mutex would.
    turn: Arc<Semaphore>,
}

impl History {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader: Arc::new(Mutex::new(reader)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The newest events that `query` describes, newest first.
    pub(crate) async fn events(&self, query: EventQuery) -> Result<Vec<Event>, HistoryError> {
        let turn = self
            .turn
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| HistoryError::Stopping)?;
        let reader = Arc::clone(&self.reader);
        let answer = spawn_blocking(move || {
            // Held until the answer is there, even when the one who asked has gone.
            let _turn = turn;
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            newest(&mut reader, query)
        });
        Ok(answer.await.map_err(|_| HistoryError::Stopping)??)
    }
}

fn newest(reader: &mut Reader, query: EventQuery) -> Result<Vec<Event>, StoreError> {
    let after = query.after.unwrap_or(i64::MIN);
    let query = reader::EventQuery {
        outcome: query.outcome,
        reason: query.reason,
        device: query.device,
        after_id: query.before,
        limit: Some(u64::from(query.limit)),
        order: Order::NewestFirst,
        ..reader::EventQuery::default()
    };
    let mut events = Vec::new();
    reader.events(&query, |event| {
        if event.id <= after {
            return ControlFlow::Break(());
        }
        events.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(events)
}
