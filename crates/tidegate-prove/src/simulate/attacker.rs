//! Somebody who records what devices send, and sends it again: as it was, altered, to other
//! topics, under other client ids, and with the device's own certificate where it was stolen.

use super::clock::elapsed;
use super::gate::open;
use super::hosts::{Ended, PORT, World, name, topic};
use super::ledger::Captured;
use super::plan::FAULTS_UNTIL;
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Codec, Connect, Packet, PublishProperties};
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;
use turmoil::net::TcpStream;

/// How long the attacker waits for the broker.
const PATIENCE: Duration = Duration::from_secs(1);
/// Publishes of one connection at most.
const MOST: u16 = 24;

/// Attacks until everything is to be healed.
pub(super) async fn attacker(world: World) -> Ended {
    let mut random = StdRng::seed_from_u64(world.plan.seed ^ 0x00A7_7AC4);
    while elapsed() < FAULTS_UNTIL {
        sleep(Duration::from_millis(random.random_range(20..2_500))).await;
        // Whatever fails, the next attempt comes.
        if timeout(PATIENCE * 4, connection(&world, &mut random))
            .await
            .is_err()
        {
            open(&world.ledger).count("attacks that got no answer");
        }
    }
    std::future::pending().await
}

async fn connection(world: &World, random: &mut StdRng) -> Option<()> {
    let devices = world.plan.devices.len();
    let client_id = if random.random_bool(0.3) {
        // The device's own: where the principal is the same, it loses its connection.
        name(super::plan::Host::Device(random.random_range(0..devices)))
    } else {
        "attacker".to_owned()
    };
    let address = format!("{}:{PORT}", name(world.plan.front()));
    let stream = TcpStream::connect(address).await.ok()?;
    let mut framed = Framed::new(stream, Codec::default());
    let connect = Connect {
        client_id: client_id.into(),
        clean_start: random.random_bool(0.5),
        session_expiry_interval_secs: 60,
        keep_alive: 60,
        ..Connect::default()
    };
    framed.send(Packet::from(connect)).await.ok()?;
    timeout(PATIENCE, framed.next()).await.ok()??.ok()?;
    for packet_id in 1..=random.random_range(1..=MOST) {
        let Some(publish) = publish(world, random, packet_id) else {
            break;
        };
        open(&world.ledger).count("publishes of the attacker");
        framed.send(Packet::from(publish)).await.ok()?;
        if random.random_bool(0.2) {
            sleep(Duration::from_millis(random.random_range(1..200))).await;
        }
    }
    // Some answers are waited for, so that the connection does not end before they are made.
    while random.random_bool(0.9) {
        timeout(PATIENCE / 4, framed.next()).await.ok()??.ok()?;
    }
    Some(())
}

/// Something recorded, in whatever way it is sent again. `None` while nothing is.
fn publish(world: &World, random: &mut StdRng, packet_id: u16) -> Option<Publish> {
    let Captured {
        mut topic,
        payload,
        properties,
    } = {
        let ledger = open(&world.ledger);
        let count = ledger.captured.len();
        // The latest are what a defence may not know yet.
        let recent = count.saturating_sub(8);
        let from = if random.random_bool(0.7) { recent } else { 0 };
        (count > 0).then(|| ledger.captured[random.random_range(from..count)].clone())?
    };
    let mut payload = payload.to_vec();
    match random.random_range(0..10) {
        0 if !payload.is_empty() => {
            let at = random.random_range(0..payload.len());
            payload[at] ^= 1 << random.random_range(0..8);
        }
        1 => topic = self::topic(random.random_range(0..=world.plan.devices.len())),
        _ => {}
    }
    let properties = PublishProperties {
        user_properties: properties
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..PublishProperties::default()
    };
    Some(Publish {
        dup: random.random_bool(0.3),
        retain: random.random_bool(0.02),
        qos: QoS::AtLeastOnce,
        topic: topic.into(),
        packet_id: NonZeroU16::new(packet_id),
        payload: payload.into(),
        properties: Some(properties),
    })
}
