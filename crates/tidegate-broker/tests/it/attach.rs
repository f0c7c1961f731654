//! Clients that come over a stream of somebody else's, and not through a port.

use std::sync::Arc;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{ConnectAckReason, DisconnectReasonCode, PublishAckReason};
use tidegate_broker::{Access, Broker, Disposition, Gate, Handle, Incoming, Limits, SecurityEvent};
use tidegate_envelope::principal::{Principal, Role};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, connect, lasting};
use crate::identities::{device, rules};

/// Delivers everything, and shows it to the test.
struct Open(UnboundedSender<Incoming>);

impl Gate for Open {
    async fn admit(&self, publish: Incoming) -> Disposition {
        self.0.send(publish).unwrap();
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

fn broker(limits: Limits) -> (Handle, CancellationToken, UnboundedReceiver<Incoming>) {
    let (sender, admitted) = unbounded_channel();
    let broker = Broker::without_listeners(limits, Arc::new(Open(sender)));
    let (handle, stop) = (broker.handle(), CancellationToken::new());
    assert!(broker.local_addresses().is_empty());
    tokio::spawn(broker.run(stop.clone()));
    (handle, stop, admitted)
}

fn attach(handle: &Handle, last: u8, principal: Principal, access: Access) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4_096);
    handle.attach(
        far,
        ([192, 0, 2, last], 1_000).into(),
        Arc::new(principal),
        access,
    );
    near
}

fn certificate(id: &str, role: Role) -> Principal {
    Principal::Certificate { id: device(id), role }
}

#[tokio::test(start_paused = true)]
async fn attached_clients_exchange_messages_by_the_rights_of_their_principals() {
    let (handle, stop, mut admitted) = broker(Limits::default());
    let gateway = attach(&handle, 1, certificate("gateway", Role::Gateway), rules());
    let (mut gateway, answer) = Client::over(Box::new(gateway), lasting("gateway")).await;
    assert_eq!(answer.reason_code, ConnectAckReason::Success);
    gateway.subscribe("site/+/sensors", QoS::AtLeastOnce).await;

    let principal = certificate("device-001", Role::Device);
    let sensor = attach(&handle, 2, principal.clone(), rules());
    let (mut sensor, _) = Client::over(Box::new(sensor), connect("sensor")).await;
    assert_eq!(
        sensor.publish("site/one/sensors", "m").await,
        PublishAckReason::Success
    );
    assert_eq!(gateway.payload().await, "m");
    assert_eq!(
        sensor.publish("site/two/sensors", "m").await,
        PublishAckReason::NotAuthorized
    );
    let seen = admitted.try_recv().unwrap();
    assert_eq!(
        (&*seen.principal, seen.peer),
        (&principal, Some(([192, 0, 2, 2], 1_000).into()))
    );
    assert!(admitted.try_recv().is_err());
    assert_eq!(handle.stats().connections, 2);

    stop.cancel();
    assert_eq!(
        gateway.ended().await,
        Some(DisconnectReasonCode::ServerShuttingDown)
    );
    let late = attach(&handle, 3, Principal::Anonymous, Access::Open);
    assert_eq!(closed(late).await, 0);
}

#[tokio::test(start_paused = true)]
async fn attached_strangers_and_mute_ones_are_turned_away_and_addresses_are_limited() {
    let limits = Limits {
        max_connections_per_address: 1,
        ..Limits::default()
    };
    let (handle, _stop, _admitted) = broker(limits);
    let stranger = attach(&handle, 1, Principal::Anonymous, rules());
    let (stranger, answer) = Client::over(Box::new(stranger), connect("c")).await;
    assert_eq!(answer.reason_code, ConnectAckReason::NotAuthorized);
    drop(stranger);

    let started = Instant::now();
    let mute = attach(&handle, 2, Principal::Anonymous, Access::Open);
    assert_eq!(
        closed(attach(&handle, 2, Principal::Anonymous, Access::Open)).await,
        0
    );
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(closed(mute).await, 0);
    assert!(started.elapsed() >= Limits::default().connect_within);
}

/// How many bytes came before the stream was closed.
async fn closed(mut stream: DuplexStream) -> usize {
    use tokio::io::AsyncReadExt;
    stream.read_to_end(&mut Vec::new()).await.unwrap()
}
