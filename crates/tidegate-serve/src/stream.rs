//! The page's stream: one hello, then a frame every 100 ms, and never a queue.

use crate::history::{EventQuery, History};
use crate::hub::{Joined, serialised};
use crate::protocol::{EventView, ServerMessage};
use crate::server::Context;
use crate::view::{RAW_IN_STREAM, event_view};
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

/// Pages that may be open at once.
pub(crate) const MAX_READERS: usize = 128;
/// A page has nothing to say; more than this in one message ends its connection.
pub(crate) const MAX_INBOUND_BYTES: usize = 4_096;
/// A reader that takes nothing for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Events that a hello takes out of the database at most.
const MAX_OLDER: u32 = 500;

#[derive(Debug, Deserialize)]
pub(crate) struct Resume {
    after: Option<i64>,
}

/// `/api/v1/stream?after=<event id>`.
pub(crate) async fn open(
    State(context): State<Context>,
    Query(resume): Query<Resume>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(permit) = context.readers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open.\n").into_response();
    };
    let upgrade = upgrade
        .max_message_size(MAX_INBOUND_BYTES)
        .max_frame_size(MAX_INBOUND_BYTES);
    let tracker = context.tracker.clone();
    upgrade.on_upgrade(move |socket| {
        tracker.track_future(async move {
            let mut reader = Reader {
                context,
                socket,
                after: resume.after,
                _permit: permit,
            };
            // An error is the reader's going away, which is its right.
            if reader.run().await.is_some() {
                drop(timeout(WRITE_PATIENCE, reader.socket.send(Message::Close(None))).await);
            }
        })
    })
}

struct Reader {
    context: Context,
    socket: WebSocket,
    /// The last event that this reader has.
    after: Option<i64>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// `Some` when the server stops, `None` when the reader is gone.
    async fn run(&mut self) -> Option<()> {
        loop {
            let Joined {
                mut hello,
                whole,
                frame_number,
                mut frames,
            } = self.context.hub.join(self.after);
            if let Some(after) = self.after
                && !whole
            {
                let missed = older(&self.context.history, after, hello.resume_from).await;
                let more = missed.len() == MAX_OLDER as usize;
                hello.prepend(missed, after, more);
            }
            self.after = Some(hello.resume_from);
            self.send(serialised(&ServerMessage::Hello(Box::new(hello))))
                .await?;
            loop {
                let cancelled = self.context.cancelled.clone();
                let frame = tokio::select! {
                    () = cancelled.cancelled() => return Some(()),
                    frame = frames.recv() => frame,
                    inbound = self.socket.recv() => match inbound {
                        // Nothing that a page could say is understood, so all of it is ignored.
                        Some(Ok(_)) => continue,
                        Some(Err(_)) | None => return None,
                    },
                };
                match frame {
                    Ok(frame) if frame.number <= frame_number => {}
                    Ok(frame) => {
                        self.send(frame.text).await?;
                        self.after = Some(frame.last_id);
                    }
                    // Too slow for the frames: the newest state, not a queue.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Some(()),
                }
            }
        }
    }

    async fn send(&mut self, text: Utf8Bytes) -> Option<()> {
        timeout(WRITE_PATIENCE, self.socket.send(Message::Text(text)))
            .await
            .ok()?
            .ok()
    }
}

/// The newest events that the hub no longer has, out of the database.
async fn older(history: &History, after: i64, up_to: i64) -> Vec<EventView> {
    let query = EventQuery {
        after: Some(after),
        before: Some(up_to.saturating_add(1)),
        limit: MAX_OLDER,
        ..EventQuery::default()
    };
    match history.events(query).await {
        Ok(events) => events
            .iter()
            .map(|event| event_view(event, RAW_IN_STREAM))
            .collect(),
        Err(error) => {
            // The reader is told how many events it misses.
            tracing::warn!(%error, after, "cannot read missed events from the database");
            Vec::new()
        }
    }
}
