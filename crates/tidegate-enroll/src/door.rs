//! Connections: accepted within bounds, TLS within a deadline, and an end for each.

use crate::desk::Desk;
use crate::event::{Refusal, What};
use crate::limiter::{Limiter, Place};
use crate::limits::Limits;
use crate::routes::{MAX_DECISIONS, Peer, Shared, Shown, routes};
use crate::service::{Material, Service};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_pki::identity;
use tidegate_pki::tls::classify;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1_024;
const MAX_HEADERS: usize = 64;
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long an end waits for a connection to take its leave.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Accepts until `stop`, then waits for the connections to end.
pub(crate) async fn accept(service: Service, stop: CancellationToken) {
    let Service {
        listener,
        material,
        tokens,
        ledger,
        devices,
        life,
        limits,
        clock,
        on_event,
    } = service;
    let shared = Arc::new(Shared {
        desk: Desk {
            tokens,
            ledger,
            devices,
            life,
            clock: Arc::clone(&clock),
        },
        material,
        limiter: Arc::new(Limiter::new(limits.clone())),
        decisions: Arc::new(Semaphore::new(MAX_DECISIONS)),
        body_within: limits.body_within,
        clock,
        on_event,
    });
    let tracker = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a place the socket is closed here, before it costs anything.
        let Some(place) = shared.limiter.connect(address.ip(), Instant::now()) else {
            shared.tell_flood(address, None, Refusal::ConnectionLimit);
            continue;
        };
        let visitor = Visitor {
            shared: Arc::clone(&shared),
            limits: limits.clone(),
            address,
            _place: place,
        };
        tracker.spawn(visitor.serve(socket, stop.clone()));
    }
    tracker.close();
    if timeout(END_PATIENCE, tracker.wait()).await.is_err() {
        tracing::debug!(
            connections = tracker.len(),
            "connections were still open at the end"
        );
    }
}

/// Somebody who has connected.
struct Visitor {
    shared: Arc<Shared>,
    limits: Limits,
    address: SocketAddr,
    _place: Place,
}

impl Visitor {
    async fn serve(self, socket: TcpStream, stop: CancellationToken) {
        let mut material = self.shared.material.clone();
        let shaken = stop
            .run_until_cancelled(self.shake_hands(socket, &mut material))
            .await;
        if let Some(Some(stream)) = shaken {
            self.answer(stream, material, stop).await;
        }
    }

    /// TLS under the material of this moment, which `material` then counts as seen.
    async fn shake_hands(
        &self,
        socket: TcpStream,
        material: &mut watch::Receiver<Arc<Material>>,
    ) -> Option<TlsStream<TcpStream>> {
        let tls = Arc::clone(&material.borrow_and_update().tls);
        let accepting = Box::pin(TlsAcceptor::from(tls).accept(socket));
        let refusal = match timeout(self.limits.handshake_within, accepting).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => Refusal::Handshake {
                reason: classify(&error),
                detail: error.to_string(),
            },
            Err(_) => Refusal::HandshakeTimeout,
        };
        self.shared.tell(self.address, None, What::Refused(refusal));
        None
    }

    /// Answers requests until the connection ends, its time is over, or the material changes:
    /// whoever it let in must be proven to the new.
    async fn answer(
        &self,
        stream: TlsStream<TcpStream>,
        mut material: watch::Receiver<Arc<Material>>,
        stop: CancellationToken,
    ) {
        let shown = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            None => Shown::Nothing,
            Some(certificate) => {
                identity::leaf(certificate).map_or(Shown::Unnamed, |leaf| Shown::Leaf(Arc::new(leaf)))
            }
        };
        let peer = Peer {
            address: self.address,
            shown,
        };
        let service = TowerToHyperService::new(routes(&self.shared, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_within)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %self.address, %error, "a connection ended in disorder");
                }
                return;
            }
            () = sleep(self.limits.connection_life) => {}
            () = stop.cancelled() => {}
            // An error says that nothing will ever change again.
            Ok(()) = material.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(timeout(END_PATIENCE, connection).await);
    }
}
