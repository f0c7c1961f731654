//! The server: listeners, connections with their bounds, and an orderly end.

use crate::access::{Access, Denied, Doors};
use crate::compatible;
use crate::history::History;
use crate::hub::Hub;
use crate::page::{self, Peer};
use crate::stream;
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_store::reader::Reader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections to one listener that are not WebSockets yet; more are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// A request's head: this many bytes, and this many headers, within this time.
const MAX_HEAD_BYTES: usize = 16 * 1_024;
const MAX_HEADERS: usize = 64;
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// A plain HTTP connection is ended after this time, however busy; a browser opens another.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(120);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long an end waits for connections to take their leave.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Called for each request that the Host or Origin check refused, a few a second at most.
pub type OnDenied = Arc<dyn Fn(Denied) + Send + Sync>;

/// The web server before it runs.
pub struct Server {
    /// The page, its stream and API. Already bound, so that its address is known before anything starts.
    pub page: TcpListener,
    /// Compatible events, and the page again; off unless given.
    pub compatible: Option<TcpListener>,
    /// Where events come from.
    pub hub: Hub,
    /// Where past events are read.
    pub reader: Reader,
    /// Who may ask.
    pub access: Access,
    /// What to do about foreign requests besides refusing them.
    pub on_denied: OnDenied,
}

/// What every handler shares.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) hub: Hub,
    pub(crate) history: History,
    pub(crate) on_denied: OnDenied,
    /// Free places for pages.
    pub(crate) readers: Arc<Semaphore>,
    /// Free places for compatible clients.
    pub(crate) clients: Arc<Semaphore>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancelled: CancellationToken,
}

impl Server {
    /// Serves until `cancelled`, then closes every connection in order, within seconds.
    ///
    /// # Errors
    /// When a listener's own address cannot be read.
    pub async fn run(self, cancelled: CancellationToken) -> io::Result<()> {
        let page_port = self.page.local_addr()?.port();
        let compatible_port = self
            .compatible
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?;
        let ports: Vec<u16> = [page_port]
            .into_iter()
            .chain(compatible_port.map(|address| address.port()))
            .collect();
        let context = Context {
            hub: self.hub,
            history: History::new(self.reader),
            on_denied: self.on_denied,
            readers: Arc::new(Semaphore::new(stream::MAX_READERS)),
            clients: Arc::new(Semaphore::new(compatible::MAX_CLIENTS)),
            tracker: TaskTracker::new(),
            cancelled: cancelled.clone(),
        };

        let routes = page::routes(context.clone());
        let on_page = page::guarded(
            routes.clone(),
            context.clone(),
            Doors::new(&self.access, page_port, &ports),
        );
        context.tracker.spawn(accept(self.page, on_page, context.clone()));
        if let Some(listener) = self.compatible {
            let doors = Doors::new(&self.access, listener.local_addr()?.port(), &ports);
            let routes = routes.layer(from_fn_with_state(context.clone(), compatible::intercept));
            context.tracker.spawn(accept(
                listener,
                page::guarded(routes, context.clone(), doors),
                context.clone(),
            ));
        }

        context.hub.run(cancelled).await;
        context.tracker.close();
        if timeout(END_PATIENCE, context.tracker.wait()).await.is_err() {
            tracing::debug!(
                connections = context.tracker.len(),
                "connections were still open at the end"
            );
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, routes: Router, context: Context) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(accepted) = context.cancelled.run_until_cancelled(listener.accept()).await {
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a free place the socket is closed here, before it costs anything.
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let connection = serve(socket, peer, routes.clone(), context.cancelled.clone(), place);
        context.tracker.spawn(connection);
    }
}

/// Answers requests until the connection ends, its time is over, or it becomes a WebSocket.
async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    routes: Router,
    cancelled: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    // An event is a small write that must not wait for the one before it to be acknowledged.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let service = TowerToHyperService::new(routes.layer(Extension(Peer(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let in_time = timeout(
        CONNECTION_LIFETIME,
        cancelled.run_until_cancelled(connection.as_mut()),
    )
    .await;
    if !matches!(in_time, Ok(Some(_))) {
        connection.as_mut().graceful_shutdown();
        drop(timeout(END_PATIENCE, connection).await);
    }
}
