//! A certificate that changes while messages flow.

use crate::gateway::{DAY, Gateway, now};
use crate::rig::{PATIENCE, Rig, TIME, device, next, sequence};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::{Access, Broker, Disposition, Gate, Handle, Incoming, Limits, SecurityEvent};
use tidegate_device::publisher::{BrokerAddress, Connector, Event, Overflow, PublishError, PublisherConfig};
use tidegate_device::renewal::{self, Renewal, RenewalConfig};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_pki::authority::Authority;
use tidegate_pki::profile::Profile;
use tidegate_pki::tls::{ClientTls, ServerTls, client_config, server_config};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Messages before the change, and as many after it.
const MESSAGES: u64 = 300;

fn renewal_of(gateway: &Gateway) -> RenewalConfig {
    RenewalConfig {
        jitter_seed: Some(1),
        ..RenewalConfig::new(gateway.server.clone(), gateway.files(), Arc::new(now))
    }
}

async fn told(events: &mut mpsc::Receiver<renewal::Event>) -> renewal::Event {
    tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("an event in time")
        .expect("a running renewal")
}

#[tokio::test]
async fn renewal_while_messages_flow_loses_none_and_refuses_none() {
    let (rig, gateway) = (Rig::new(), Gateway::start().await);
    gateway.issue_old();
    let (handle, readings, port) = gateway.broker();
    let old = gateway.files().client_config().unwrap();
    let (change, tls) = watch::channel(old);
    let (mut publisher, mut events) = rig.start(PublisherConfig {
        broker: BrokerAddress {
            host: "127.0.0.1".into(),
            port,
            tls: None,
        },
        tls_changes: Some(tls),
        overflow: Overflow::Refuse,
        queue_capacity: 64,
        max_age: None,
        ..rig.config(0)
    });
    let (mut acknowledged, mut reconnecting, mut resumed) = (BTreeSet::new(), 0, Vec::new());
    let mut renewal: Option<(Renewal, mpsc::Receiver<renewal::Event>)> = None;
    let mut renewed_until = None;
    let mut after_the_change = 0;
    while after_the_change < MESSAGES {
        // As many as fit, at every moment.
        loop {
            match publisher.publish(TIME, "operational", &rig.readings) {
                Ok(_) => {}
                Err(PublishError::QueueFull(_)) => break,
                Err(other) => panic!("{other}"),
            }
        }
        tokio::select! {
            event = next(&mut events) => match event {
                Event::Acknowledged { sequence, .. } => {
                    assert!(acknowledged.insert(sequence.get()), "{sequence} twice");
                    after_the_change += u64::from(resumed.len() == 2);
                }
                Event::Reconnecting { unacknowledged } => {
                    assert_eq!(unacknowledged, 0);
                    reconnecting += 1;
                }
                Event::Connected { resumed: was } => resumed.push(was),
                other => panic!("{other:?}"),
            },
            Some(event) = async { renewal.as_mut()?.1.recv().await } => {
                let renewal::Event::Renewed { not_after, next, authorities_changed } = event else {
                    panic!("{event:?}")
                };
                assert!(not_after > now().plus(6 * DAY) && next < not_after && !authorities_changed);
                renewed_until = Some(not_after);
                let tls = renewal.as_ref().unwrap().0.tls();
                change.send(Arc::clone(&tls.borrow())).unwrap();
            }
        }
        if renewal.is_none() && acknowledged.len() as u64 == MESSAGES {
            // Due at once: two thirds of its life are over.
            renewal = Some(Renewal::start(renewal_of(&gateway)).unwrap());
        }
    }
    assert_eq!((reconnecting, resumed), (1, vec![false, true]));
    let session = handle.sessions().pop().unwrap();
    assert_eq!(session.tls.unwrap().not_after, renewed_until);
    assert!(!session.tls.unwrap().resumed);
    let counts = publisher.counts();
    assert_eq!((counts.refused, counts.dropped, counts.disconnected), (0, 0, 0));
    assert_eq!(publisher.close(PATIENCE).await, 0);
    let arrived = readings.sequences();
    let expected: Vec<u64> = (1..=arrived.len() as u64).collect();
    assert_eq!(arrived, expected, "each once and in order");
    assert!(acknowledged.iter().all(|sequence| arrived.contains(sequence)));
}

#[tokio::test]
async fn certificate_put_in_place_by_hand_is_noticed_when_the_next_one_is_due() {
    let gateway = Gateway::start().await;
    gateway.issue(&Profile::device(device()).between(now().minus(DAY), now().plus(6 * DAY)));
    tokio::time::pause();
    let (renewal, mut events) = Renewal::start(renewal_of(&gateway)).unwrap();
    let mut tls = renewal.tls();
    gateway.issue(&Profile::device(device()).between(now().minus(DAY), now().plus(7 * DAY)));
    let event = told_later(&mut events).await;
    let renewal::Event::Replaced { not_after, next } = event else {
        panic!("{event:?}")
    };
    assert!(not_after > now().plus(6 * DAY) && next > now().plus(4 * DAY));
    tls.changed().await.unwrap();
}

/// As [`told`], with time paused.
async fn told_later(events: &mut mpsc::Receiver<renewal::Event>) -> renewal::Event {
    tokio::time::timeout(4 * renewal::CHECK_EVERY, events.recv())
        .await
        .expect("an event in time")
        .expect("a running renewal")
}

#[tokio::test]
async fn failed_renewal_is_told_with_the_next_attempt_and_the_old_certificate_goes_on() {
    let gateway = Gateway::start().await;
    gateway.issue_old();
    let mut config = renewal_of(&gateway);
    // Nobody is there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.server.port = listener.local_addr().unwrap().port();
    drop(listener);
    let (renewal, mut events) = Renewal::start(config).unwrap();
    let event = told(&mut events).await;
    let renewal::Event::RenewalFailed {
        detail,
        retry_in,
        not_after,
    } = event
    else {
        panic!("{event:?}")
    };
    assert!(detail.contains("cannot connect to 127.0.0.1:"), "{detail}");
    assert!(retry_in <= renewal::FIRST_RETRY, "{retry_in:?}");
    assert_eq!(not_after, gateway.files().inspect().unwrap().not_after);
    assert!(!renewal.tls().has_changed().unwrap());
}

#[tokio::test]
async fn renewal_without_a_certificate_does_not_start() {
    let gateway = Gateway::start().await;
    assert!(Renewal::start(renewal_of(&gateway)).is_err());
    gateway.issue_old();
    assert!(Renewal::start(renewal_of(&gateway)).is_ok());
}

/// Lets messages through as a test says.
#[derive(Debug)]
struct Held {
    free: Semaphore,
    asked: mpsc::UnboundedSender<u64>,
}

impl Gate for Held {
    async fn admit(&self, publish: Incoming) -> Disposition {
        self.asked.send(sequence(&publish.payload)).unwrap();
        self.free.acquire().await.unwrap().forget();
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

/// TLS on both ends of streams in memory, so that time can be paused.
struct InMemory {
    authority: Authority,
    folder: tempfile::TempDir,
    connector: Connector,
    gate: Arc<Held>,
    asked: mpsc::UnboundedReceiver<u64>,
    _stop: tokio_util::sync::DropGuard,
}

impl InMemory {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("ca.pem"), &path("ca-key.pem"), now()).unwrap();
        let server = authority
            .issue(&Profile::server(&[""; 0]).unwrap(), now())
            .unwrap();
        server.write(folder.path(), "server", false).unwrap();
        let tls = ServerTls {
            certificate: path("server.pem"),
            key: path("server-key.pem"),
            client_auth: None,
        };
        let acceptor = TlsAcceptor::from(server_config(&tls).unwrap());
        let (sender, asked) = mpsc::unbounded_channel();
        let gate = Arc::new(Held {
            free: Semaphore::new(0),
            asked: sender,
        });
        let broker = Broker::without_listeners(Limits::default(), Arc::clone(&gate));
        let handle = broker.handle();
        let stop = CancellationToken::new();
        tokio::spawn(broker.run(stop.clone()));
        Self {
            authority,
            folder,
            connector: connector(handle, acceptor),
            gate,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        let issued = self.authority.issue(&Profile::device(device()), now()).unwrap();
        issued.write(self.folder.path(), "device-001", true).unwrap();
        let path = |name: &str| self.folder.path().join(name);
        client_config(&ClientTls {
            ca: path("ca.pem"),
            identity: Some((path("device-001.pem"), path("device-001-key.pem"))),
        })
        .unwrap()
    }
}

fn connector(handle: Handle, acceptor: TlsAcceptor) -> Connector {
    Connector::new(move |_| {
        let (handle, acceptor) = (handle.clone(), acceptor.clone());
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            // A client may give up in the middle.
            if let Ok(stream) = acceptor.accept(theirs).await {
                let principal = Principal::Certificate {
                    id: device(),
                    role: Role::Device,
                };
                handle.attach(
                    stream,
                    ([127, 0, 0, 1], 1).into(),
                    Arc::new(principal),
                    Access::Open,
                );
            }
        });
        async move { Ok(ours) }
    })
}

#[tokio::test(start_paused = true)]
async fn change_of_tls_does_not_wait_for_ever_for_an_acknowledgement_and_sends_again() {
    let (rig, mut broker) = (Rig::new(), InMemory::start());
    let (change, tls) = watch::channel(broker.client());
    let (mut publisher, mut events) = rig.start(PublisherConfig {
        tls_changes: Some(tls),
        connector: Some(broker.connector.clone()),
        max_age: None,
        ..rig.config(1_883)
    });
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    rig.publish(&mut publisher);
    assert_eq!(broker.asked.recv().await, Some(1));
    change.send(broker.client()).unwrap();
    // Waits in the queue until the change is done.
    rig.publish(&mut publisher);
    assert_eq!(next(&mut events).await, Event::Reconnecting { unacknowledged: 1 });
    broker.gate.free.add_permits(10);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(next(&mut events).await);
    }
    let acknowledged: Vec<u64> = seen
        .iter()
        .filter_map(|event| match event {
            Event::Acknowledged { sequence, .. } => Some(sequence.get()),
            _ => None,
        })
        .collect();
    assert_eq!(acknowledged, [1, 2], "{seen:?}");
    assert!(seen.contains(&Event::Connected { resumed: true }), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn change_of_tls_ends_the_wait_for_the_next_attempt() {
    let (rig, broker) = (Rig::new(), InMemory::start());
    // A CA of no use: every attempt fails.
    let other = InMemory::start();
    let (change, tls) = watch::channel(other.client());
    let (_publisher, mut events) = rig.start(PublisherConfig {
        tls_changes: Some(tls),
        connector: Some(broker.connector.clone()),
        jitter_seed: Some(1),
        ..rig.config(1_883)
    });
    let mut wait = Duration::ZERO;
    while wait < Duration::from_secs(10) {
        let event = tokio::time::timeout(4 * PATIENCE, events.recv())
            .await
            .unwrap()
            .unwrap();
        let Event::Disconnected { retry_in, .. } = event else {
            panic!("{event:?}")
        };
        wait = retry_in;
    }
    let start = tokio::time::Instant::now();
    change.send(broker.client()).unwrap();
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    assert!(start.elapsed() < wait / 2, "{:?} of {wait:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn publisher_goes_on_when_nothing_can_change_its_tls_any_more() {
    let (rig, mut broker) = (Rig::new(), InMemory::start());
    let (change, tls) = watch::channel(broker.client());
    broker.gate.free.add_permits(10);
    let (mut publisher, mut events) = rig.start(PublisherConfig {
        tls_changes: Some(tls),
        connector: Some(broker.connector.clone()),
        ..rig.config(1_883)
    });
    assert_eq!(next(&mut events).await, Event::Connected { resumed: false });
    drop(change);
    rig.publish(&mut publisher);
    let event = next(&mut events).await;
    assert!(matches!(event, Event::Acknowledged { .. }), "{event:?}");
    assert_eq!(broker.asked.recv().await, Some(1));
}
