//! Questions to the database: off the async threads, and one at a time.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_envelope::id::{DeviceId, ZoneId};
use tidegate_envelope::reason::Reason;
use tidegate_store::event::{Event, Outcome};
use tidegate_store::error::StoreError;
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
    pub(crate) zone: Option<ZoneId>,
    /// So many at most.
    pub(crate) limit: u32,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// The database refused.
    #[error("the database cannot be read")]
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
            newest(&mut reader, &query)
        });
        Ok(answer.await.map_err(|_| HistoryError::Stopping)??)
    }
}

fn newest(reader: &mut Reader, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
    let stored = reader::EventQuery {
        outcome: query.outcome,
        reason: query.reason,
        device: query.device.clone(),
        after_id: query.before,
        order: Order::NewestFirst,
        ..reader::EventQuery::default()
    };
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    reader.events(&stored, |event| {
        if found.len() >= limit || query.after.is_some_and(|after| event.id <= after) {
            return ControlFlow::Break(());
        }
        if query.zone.is_none() || event.zone == query.zone {
            found.push(event);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
