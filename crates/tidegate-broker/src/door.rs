//! Listening sockets: accepting, TLS, and deadlines for those who do not speak.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reason::Reason;
use tidegate_pki::tls::{classify, explain};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::acl::Access;
use crate::broker::BrokerError;
use crate::config::{Listener, Transport};
use crate::connect::{Arrival, Opening};
use crate::connection::{Connection, Link};
use crate::limits::{Full, Place};
use crate::shared::{Shared, TlsSlot, Who};
use crate::tls::Identity;
use crate::turn::InTurn;

/// Sockets that the kernel holds for us between two accepts.
const BACKLOG: u32 = 4_096;

/// Longest pause after a failed accept: usually there are no file descriptors left, and some must
/// go first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A lack that lasts is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);

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

    /// Accepts until the broker stops.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let proof = match self.transport {
            Transport::Plain => Proof::None,
            Transport::Tls => Proof::Tls,
        };
        let mut told: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.course.stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    set_options(&socket);
                    receive(
                        &shared,
                        Either::Left(socket),
                        peer,
                        proof.clone(),
                        self.access.clone(),
                    );
                }
                // The peer has gone again: no reason to let the next one wait.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        self.tell_lack(&shared, &error);
                    }
                    tokio::select! {
                        () = sleep(ACCEPT_PAUSE) => {}
                        () = shared.places.freed() => {}
                    }
                }
            }
        }
    }

    /// Newcomers wait in the kernel's queue until there is room; those who are connected go on.
    fn tell_lack(&self, shared: &Shared, error: &io::Error) {
        tracing::error!(address = %self.address, %error, "cannot accept connections; trying on");
        let who = Who {
            peer: self.address,
            principal: None,
            client_id: None,
        };
        let detail = format!("no connection can be accepted at this address: {error}");
        shared.report(Reason::ConnectionLimit, &who, None, detail);
    }
}

/// How the other end proves who it is.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// Not at all.
    None,
    /// By its TLS certificate, where one is asked for.
    Tls,
    /// The process that holds the stream knows.
    Vouched(Arc<Principal>),
}

/// Serves whoever is at the other end of a stream, if there is a place. Each stream gets a task of
/// its own at once, so that a mute one keeps nobody waiting.
pub(crate) fn receive(shared: &Arc<Shared>, link: Link, peer: SocketAddr, proof: Proof, access: Access) {
    let who = Who {
        peer,
        principal: None,
        client_id: None,
    };
    let place = match shared.places.take(peer.ip()) {
        Ok(place) => place,
        Err(full) => {
            shared.report(Reason::ConnectionLimit, &who, None, describe(full));
            return;
        }
    };
    let newcomer = Newcomer {
        link,
        who,
        place,
        proof,
        access,
        shared: Arc::clone(shared),
    };
    let (stop, end) = (shared.course.stop.clone(), shared.course.end.clone());
    shared.course.tasks.spawn(async move {
        // In a box, the future of handshake and CONNECT is gone once the connection runs.
        let admitted = Box::pin(newcomer.admit(stop)).await;
        if let Some(connection) = admitted {
            end.run_until_cancelled(connection.run()).await;
        }
    });
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

/// Somebody who has said nothing yet.
struct Newcomer {
    link: Link,
    who: Who,
    place: Place,
    proof: Proof,
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
        let Self {
            link,
            mut who,
            place,
            proof,
            access,
            shared,
        } = self;
        let (link, identity, tls_generation): (Link, _, _) = match proof {
            Proof::None => (link, Identity::vouched(Arc::new(Principal::Anonymous)), None),
            Proof::Vouched(principal) => (link, Identity::vouched(principal), None),
            Proof::Tls => {
                let TlsSlot { config, generation } = shared.tls();
                let handshake = Box::pin(TlsAcceptor::from(config?).accept(link));
                let stream = match InTurn::new(&shared.handshakes, handshake).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        shared.report(classify(&error), &who, None, explain(&error));
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
            tls,
        } = identity;
        who.principal = Some(Arc::clone(&principal));
        let mut arrival = Arrival {
            link,
            who,
            principal,
            certificate,
            tls,
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
