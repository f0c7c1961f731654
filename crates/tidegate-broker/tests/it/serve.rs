//! A broker on a free port, with a gate that does what a message's payload says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tidegate_broker::{
    Access, Broker, BrokerConfig, Disposition, Gate, Handle, Incoming, Limits, Listener, Reply,
    SecurityEvent, Transport,
};
use tidegate_envelope::reason::Reason;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time after which a test gives up waiting for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Refuses `refuse:<reason>`, is unavailable for `unavailable`, holds `hold` until
/// [`Server::let_go`], and answers `answer:<topic>=<text>`; everything else is delivered.
pub(crate) struct ObedientGate {
    events: UnboundedSender<SecurityEvent>,
    admitted: UnboundedSender<Incoming>,
    held: Semaphore,
}

impl Gate for ObedientGate {
    async fn admit(&self, publish: Incoming) -> Disposition {
        let wish = publish.payload.clone();
        self.admitted.send(publish).unwrap();
        match std::str::from_utf8(&wish).unwrap_or_default() {
            "unavailable" => Disposition::Unavailable,
            "hold" => {
                self.held.acquire().await.unwrap().forget();
                Disposition::Deliver
            }
            wish => {
                if let Some(name) = wish.strip_prefix("refuse:") {
                    Disposition::Refused(Reason::from_name(name).unwrap())
                } else if let Some((topic, text)) =
                    wish.strip_prefix("answer:").and_then(|rest| rest.split_once('='))
                {
                    Disposition::Reply(Reply {
                        topic: topic.into(),
                        payloads: vec![text.to_owned().into()],
                    })
                } else {
                    Disposition::Deliver
                }
            }
        }
    }

    fn observe(&self, event: SecurityEvent) {
        // A test that is over listens no more.
        let _ = self.events.send(event);
    }
}

/// A running broker.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) stop: CancellationToken,
    pub(crate) task: Option<JoinHandle<()>>,
    gate: Arc<ObedientGate>,
    events: Mutex<UnboundedReceiver<SecurityEvent>>,
    admitted: Mutex<UnboundedReceiver<Incoming>>,
}

impl Server {
    /// A broker without TLS that lets everybody do everything.
    pub(crate) fn open() -> Self {
        Self::limited(Limits::default())
    }

    pub(crate) fn limited(limits: Limits) -> Self {
        Self::start(Transport::Plain, Access::Open, None, limits)
    }

    pub(crate) fn start(
        transport: Transport,
        access: Access,
        tls: Option<Arc<ServerConfig>>,
        limits: Limits,
    ) -> Self {
        let (events_in, events) = unbounded_channel();
        let (admitted_in, admitted) = unbounded_channel();
        let gate = Arc::new(ObedientGate {
            events: events_in,
            admitted: admitted_in,
            held: Semaphore::new(0),
        });
        let listener = Listener {
            address: ([127, 0, 0, 1], 0).into(),
            transport,
            access,
        };
        let config = BrokerConfig {
            listeners: vec![listener],
            tls,
            limits,
        };
        let broker = Broker::bind(config, Arc::clone(&gate)).unwrap();
        let (address, handle, stop) = (
            broker.local_addresses()[0],
            broker.handle(),
            CancellationToken::new(),
        );
        let task = Some(tokio::spawn(broker.run(stop.clone())));
        Self {
            address,
            handle,
            stop,
            task,
            gate,
            events: Mutex::new(events),
            admitted: Mutex::new(admitted),
        }
    }

    /// The next event, which must come.
    pub(crate) async fn event(&self) -> SecurityEvent {
        timeout(PATIENCE, self.events.lock().await.recv())
            .await
            .expect("an event in time")
            .unwrap()
    }

    /// Skips events until one with this reason.
    pub(crate) async fn event_of(&self, reason: Reason) -> SecurityEvent {
        loop {
            let event = self.event().await;
            if event.reason == reason {
                return event;
            }
        }
    }

    /// The next publish that reached the gate.
    pub(crate) async fn admitted(&self) -> Incoming {
        timeout(PATIENCE, self.admitted.lock().await.recv())
            .await
            .expect("a publish in time")
            .unwrap()
    }

    /// A publish that reached the gate already.
    pub(crate) async fn pending_admitted(&self) -> Option<Incoming> {
        self.admitted.lock().await.try_recv().ok()
    }

    /// Lets the gate decide about `count` held publishes.
    pub(crate) fn let_go(&self, count: usize) {
        self.gate.held.add_permits(count);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
