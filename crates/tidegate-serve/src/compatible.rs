//! The compatible event stream: every event at once to every client, for pages and programs that
//! were written for `ws://localhost:8765`.

pub(crate) mod event;
mod inbound;

use crate::page::wants_websocket;
use crate::server::Context;
use crate::stream::MAX_INBOUND_BYTES;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use inbound::is_ping;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::timeout;

/// Events that a client may be behind; at about 270 bytes each, about 1 MiB, held once for all
/// clients. The operating system's socket buffers hold as much again for each.
pub(crate) const BACKLOG: usize = 4_096;
/// Clients that may be connected at once.
pub(crate) const MAX_CLIENTS: usize = 64;
/// Events written into one flush at most, when so many wait already.
const WRITE_GROUP: usize = 256;
/// A client that takes nothing for so long is dropped.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// The page's path on this port too; every other WebSocket gets compatible events.
const PAGE_STREAM: &str = "/api/v1/stream";

/// Takes every WebSocket request, whatever its path, and lets the others through.
pub(crate) async fn intercept(State(context): State<Context>, request: Request, next: Next) -> Response {
    if !wants_websocket(&request) || request.uri().path() == PAGE_STREAM {
        return next.run(request).await;
    }
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => open(context, upgrade),
        Err(rejection) => rejection.into_response(),
    }
}

fn open(context: Context, upgrade: WebSocketUpgrade) -> Response {
    let Ok(permit) = context.clients.clone().try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many clients are connected.\n",
        )
            .into_response();
    };
    let upgrade = upgrade
        .max_message_size(MAX_INBOUND_BYTES)
        .max_frame_size(MAX_INBOUND_BYTES);
    let tracker = context.tracker.clone();
    upgrade.on_upgrade(move |socket| {
        tracker.track_future(
            Client {
                context,
                socket,
                _permit: permit,
            }
            .run(),
        )
    })
}

struct Client {
    context: Context,
    socket: WebSocket,
    _permit: OwnedSemaphorePermit,
}

/// Why a client's loop ended.
enum End {
    /// The server stops.
    Stopped,
    /// The client went away.
    Gone,
    /// The client does not read.
    Stalled,
}

impl Client {
    async fn run(mut self) {
        let (stats, events) = self.context.hub.join_compatible();
        match self.serve(stats, events).await {
            End::Stopped => {
                let away = CloseFrame {
                    code: close_code::AWAY,
                    reason: Utf8Bytes::from_static(""),
                };
                drop(timeout(WRITE_PATIENCE, self.socket.send(Message::Close(Some(away)))).await);
            }
            End::Gone => {}
            End::Stalled => tracing::info!("dropped a compatible client that does not read"),
        }
    }

    async fn serve(&mut self, stats: Utf8Bytes, mut events: broadcast::Receiver<Utf8Bytes>) -> End {
        if let Err(end) = self.write(stats, &mut events).await {
            return end;
        }
        let cancelled = self.context.cancelled.clone();
        loop {
            let outcome = tokio::select! {
                () = cancelled.cancelled() => return End::Stopped,
                event = events.recv() => match event {
                    Ok(text) => self.write(text, &mut events).await,
                    Err(RecvError::Lagged(_)) => return End::Stalled,
                    Err(RecvError::Closed) => return End::Stopped,
                },
                inbound = self.socket.recv() => match inbound {
                    Some(Ok(Message::Text(text))) if is_ping(&text) => {
                        self.write(Utf8Bytes::from_static(event::PONG), &mut events).await
                    }
                    // Anything else is not understood, and ignored.
                    Some(Ok(_)) => Ok(()),
                    Some(Err(_)) | None => return End::Gone,
                },
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Writes `first` and whatever waits already, in one flush: nothing is held back, and a burst
    /// does not cost a system call for each event.
    async fn write(
        &mut self,
        first: Utf8Bytes,
        events: &mut broadcast::Receiver<Utf8Bytes>,
    ) -> Result<(), End> {
        let writing = async {
            self.socket
                .feed(Message::Text(first))
                .await
                .map_err(|_| End::Gone)?;
            for _ in 1..WRITE_GROUP {
                match events.try_recv() {
                    Ok(text) => self
                        .socket
                        .feed(Message::Text(text))
                        .await
                        .map_err(|_| End::Gone)?,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    Err(TryRecvError::Lagged(_)) => return Err(End::Stalled),
                }
            }
            self.socket.flush().await.map_err(|_| End::Gone)
        };
        timeout(WRITE_PATIENCE, writing)
            .await
            .unwrap_or(Err(End::Stalled))
    }
}
