//! Listening sockets: accepting, TLS, and deadlines for those who do not speak.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tidegate_envelope::reason::Reason;
use tidegate_pki::tls::classify;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acl::Access;
use crate::broker::BrokerError;
use crate::config::{Listener, Transport};
use crate::connect::{Arrival, Opening};
use crate::connection::{Connection, Link};
use crate::limits::{Full, Place};
use crate::shared::{Shared, TlsSlot, Who};
use crate::tls::Identity;

/// Sockets that the kernel holds for us between two accepts.
const BACKLOG: u32 = 4_096;

/// Pause after a failed accept: usually there are no file descriptors left, and some must go first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Idle time after which the kernel asks whether a peer still exists. It finds half-open sockets
/// of clients that promised no keep-alive.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// An open port.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    transport: Transport,
    access: Access,
}

impl Door {
    pub(crate) fn open(config: &Listener) -> Result<Self, BrokerError> {
        let refused = |source| BrokerError::Bind {
            address: config.address,
            source,
        };
        let listener = listen(config.address).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            listener,
            address,
            transport: config.transport,
            access: config.access.clone(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`. Each socket gets a task of its own at once, so that a mute one keeps
    /// nobody waiting; the tasks end when `end` is cancelled.
    pub(crate) async fn run(
        self,
        shared: Arc<Shared>,
        tasks: TaskTracker,
        stop: CancellationToken,
        end: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let who = Who {
                peer,
                principal: None,
                client_id: None,
            };
            let place = match shared.places.take(peer.ip()) {
                Ok(place) => place,
                Err(full) => {
                    shared.report(Reason::ConnectionLimit, &who, None, describe(full));
                    continue;
                }
            };
            let newcomer = Newcomer {
                socket,
                who,
                place,
                transport: self.transport,
                access: self.access.clone(),
                shared: Arc::clone(&shared),
            };
            let (stop, end) = (stop.clone(), end.clone());
            tasks.spawn(async move {
                // In a box, the future of handshake and CONNECT is gone once the connection runs.
                let admitted = Box::pin(newcomer.admit(stop)).await;
                if let Some(connection) = admitted {
                    end.run_until_cancelled(connection.run()).await;
                }
            });
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn describe(full: Full) -> &'static str {
    match full {
        Full::Broker => "there are as many connections as there may be",
        Full::Address => "there are as many connections from this address as there may be",
    }
}

/// A socket that has said nothing yet.
struct Newcomer {
    socket: TcpStream,
    who: Who,
    place: Place,
    transport: Transport,
    access: Access,
    shared: Arc<Shared>,
}

impl Newcomer {
    /// `None` when no connection comes of it; what a defender should know is reported.
    async fn admit(self, stop: CancellationToken) -> Option<Connection> {
        let deadline = Instant::now() + self.shared.limits.connect_within;
        let (shared, who) = (Arc::clone(&self.shared), self.who.clone());
        match stop
            .run_until_cancelled(timeout_at(deadline, self.speak()))
            .await?
        {
            Ok(spoken) => {
                let (arrival, opening) = spoken?;
                Box::pin(arrival.establish(shared, opening)).await
            }
            Err(_) => {
                let within = shared.limits.connect_within.as_millis();
                shared.report(
                    Reason::ConnectTimeout,
                    &who,
                    None,
                    format!("no complete CONNECT within {within} ms"),
                );
                None
            }
        }
    }

    /// From the first byte to the end of the CONNECT.
    async fn speak(self) -> Option<(Arrival, Opening)> {
        set_options(&self.socket);
        let Self {
            socket,
            mut who,
            place,
            transport,
            access,
            shared,
        } = self;
        let (link, identity, tls_generation): (Link, _, _) = match transport {
            Transport::Plain => (Either::Left(socket), Identity::anonymous(), None),
            Transport::Tls => {
                let TlsSlot { config, generation } = shared.tls();
                let stream = match Box::pin(TlsAcceptor::from(config?).accept(socket)).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        shared.report(classify(&error), &who, None, error.to_string());
                        return None;
                    }
                };
                match Identity::of(stream.get_ref().1) {
                    Ok(identity) => (Either::Right(Box::new(stream)), identity, Some(generation)),
                    Err(error) => {
                        shared.report(Reason::TlsBadCertificate, &who, None, error.to_string());
                        return None;
                    }
                }
            }
        };
        let Identity {
            principal,
            certificate,
        } = identity;
        let principal = Arc::new(principal);
        who.principal = Some(Arc::clone(&principal));
        let mut arrival = Arrival {
            link,
            who,
            principal,
            certificate,
            tls_generation,
            access,
            place,
        };
        let opening = arrival.read_opening(&shared).await?;
        Some((arrival, opening))
    }
}

/// Failures are of no consequence: acknowledgements would be slower, dead peers found later.
fn set_options(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
}
