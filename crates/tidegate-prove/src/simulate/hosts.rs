//! What runs on the hosts: devices, a broker, and the gateway behind it.

use super::clock::{Clock, elapsed};
use super::disk::Disk;
use super::gate::{ReplayGate, SharedLedger, capture, observe, open};
use super::plan::{Attacker, FormatPlan, Host, LAST_READING, Mode, Plan};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rumqttc::MqttOptions;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::subscriber::{self, Watch};
use tidegate_broker::{
    Access, Broker, Disposition, Gate, Handle, Incoming, Limits, SecurityEvent, TopicPattern, TopicRules,
};
use tidegate_device::publisher::{
    BrokerAddress, Connector, MessageFormat, Publisher, PublisherConfig, Signing,
};
use tidegate_device::sequence::SequenceFile;
use tidegate_envelope::cose_v1::TagLength;
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reading::Channels;
use tidegate_verify::registry::{Device, Format, Registry, TopicShape, Window, Zone};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use turmoil::net::{TcpListener, TcpStream};

/// The one channel of every reading.
pub(super) const CHANNEL: &str = "flow_rate";
/// Where brokers listen.
pub(super) const PORT: u16 = 1883;
/// The attacker's host.
pub(super) const ATTACKER: &str = "attacker";
/// The broker is asked whether it is still there after so much silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a device waits for its last acknowledgements.
const CLOSE_WITHIN: Duration = Duration::from_secs(12);

/// What all hosts of one simulation know.
#[derive(Clone)]
pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) registry: Arc<Registry>,
    pub(super) disk: Disk,
    pub(super) gateway_clock: Clock,
    pub(super) device_clocks: Arc<[Clock]>,
    pub(super) ledger: SharedLedger,
    /// Where devices keep their sequence numbers: real files, since writing them is synchronous.
    pub(super) folder: Arc<PathBuf>,
}

/// What hosts end with.
pub(super) type Ended = turmoil::Result;

/// A host's name in the network.
pub(super) fn name(host: Host) -> String {
    match host {
        Host::Device(index) => format!("device-{index}"),
        Host::Broker => "broker".to_owned(),
        Host::Gateway => "gateway".to_owned(),
    }
}

/// The telemetry topic of a device.
pub(super) fn topic(index: usize) -> String {
    format!("site/device-{index}/sensors")
}

/// The device with this number, in certificates and in topics.
pub(super) fn device_id(index: usize) -> DeviceId {
    DeviceId::new(&format!("device-{index}")).expect("it is a name")
}

fn message_id(index: usize) -> MessageDeviceId {
    MessageDeviceId::new(&format!("Device-{index}")).expect("it is a name")
}

fn key(index: usize) -> MacKey {
    MacKey::derive(&RootKey::from_bytes([7; 32]), &device_id(index), KeyEpoch(0))
}

/// The registry of a plan: its devices, and one that attacks.
pub(super) fn registry(plan: &Plan) -> anyhow::Result<Registry> {
    let zone = ZoneId::new("kitchen").map_err(anyhow::Error::msg)?;
    let device = |index: usize| Device {
        id: device_id(index),
        message_id: message_id(index),
        topic_segment: name(Host::Device(index)),
        zone: zone.clone(),
        class: "water-inlet".into(),
        enabled: true,
        keys: vec![(KeyEpoch(0), key(index))],
        format: match plan.devices.get(index).map(|device| device.format) {
            Some(FormatPlan::CoseV1) => Format::CoseV1 {
                channels: Arc::from([CHANNEL.into()]),
            },
            Some(FormatPlan::CoseDetached) => Format::CoseDetached,
            _ => Format::JsonV1,
        },
        strict_sequence: false,
        window: if plan.window {
            Window::SixtyFour
        } else {
            Window::None
        },
        quota_per_s: 1_000,
    };
    let devices = (0..=plan.devices.len()).map(device).collect();
    let zones = vec![Zone {
        id: zone.clone(),
        name: "Kitchen".into(),
    }];
    Ok(Registry::new(
        zones,
        devices,
        TopicShape::new("site/{device}/sensors")?,
    )?)
}

/// A device: measures at its pace, and publishes.
pub(super) async fn device(world: World, index: usize) -> Ended {
    let plan = &world.plan.devices[index];
    let clock = &world.device_clocks[index];
    let id = device_id(index);
    let number = u32::try_from(index)?;
    let file = world.folder.join(format!("device-{index}.sequence"));
    let sequence = SequenceFile::open(&file, &id)?;
    let boot = sequence.boot();
    let seed = world.plan.seed.wrapping_mul(31).wrapping_add(u64::from(number)) ^ u64::from(boot.0) << 32;
    let broker = BrokerAddress {
        host: name(world.plan.front()),
        port: PORT,
        tls: None,
    };
    let signing = Signing {
        key: key(index),
        epoch: KeyEpoch(0),
    };
    let mut config = PublisherConfig::new(id, message_id(index), topic(index), broker, Some(signing));
    config.format = match plan.format {
        FormatPlan::JsonV1 => MessageFormat::JsonV1,
        FormatPlan::CoseV1 => MessageFormat::CoseV1 {
            channels: Arc::from([CHANNEL.into()]),
            tag: TagLength::Full,
        },
        FormatPlan::CoseDetached => MessageFormat::CoseDetached {
            tag: TagLength::Short,
        },
    };
    config.connector = Some(Connector::new(TcpStream::connect::<String>));
    config.connect_timeout = CONNECT_TIMEOUT;
    config.keep_alive = KEEP_ALIVE;
    config.jitter_seed = Some(seed);
    let (mut publisher, mut events) = Publisher::start(config, sequence)?;

    let mut random = StdRng::seed_from_u64(seed);
    let mut next = Instant::now() + plan.interval.mul_f64(random.random());
    while elapsed() < LAST_READING {
        tokio::select! {
            biased;
            Some(event) = events.recv() => {
                open(&world.ledger).told(number, boot.0, &event, elapsed());
            }
            () = sleep_until(next) => {
                next += plan.interval;
                // Exact in the 32 bits that cose-v1 has.
                let value = f64::from(random.random_range(0..1_000_000_u32)) / 64.0;
                let channels = Channels::new(vec![(CHANNEL.into(), value)]).expect("one channel has one name");
                let timestamp = clock.now();
                let sequence = publisher.publish(timestamp, "operational", &channels)?;
                let key = (number, boot.0, sequence.get());
                open(&world.ledger).sent(key, timestamp, value, elapsed());
            }
        }
    }
    let mut closing = std::pin::pin!(publisher.close(CLOSE_WITHIN));
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => {
                open(&world.ledger).told(number, boot.0, &event, elapsed());
            }
            left = &mut closing => {
                open(&world.ledger).note(elapsed(), "closed", &(number, left));
                break;
            }
        }
    }
    while let Ok(event) = events.try_recv() {
        open(&world.ledger).told(number, boot.0, &event, elapsed());
    }
    std::future::pending().await
}

/// A broker that leaves messages to whoever subscribes.
pub(super) async fn broker(world: World) -> Ended {
    let gate = PassThrough(Arc::clone(&world.ledger));
    serve(&world, Arc::new(gate)).await
}

/// The gateway, with the broker in its process or subscribed to it.
pub(super) async fn gateway(world: World) -> Ended {
    let gate = ReplayGate::start(
        &world.plan,
        &world.registry,
        world.disk.clone(),
        &world.gateway_clock,
        &world.ledger,
    )?;
    if world.plan.mode == Mode::Embedded {
        return serve(&world, gate).await;
    }
    let mut options = MqttOptions::new("gateway", (name(Host::Broker), PORT));
    options
        .set_socket_connector(|address, _| TcpStream::connect(address))
        .set_connect_timeout(CONNECT_TIMEOUT);
    let mut watch = Told(Arc::clone(&world.ledger));
    let filter = world.registry.topics().filter();
    subscriber::run(options, &filter, &gate, CancellationToken::new(), &mut watch).await?;
    Ok(())
}

/// Runs a broker on the simulated network.
async fn serve<G: Gate>(world: &World, gate: Arc<G>) -> Ended {
    let broker = Broker::without_listeners(Limits::default(), gate);
    let handle = broker.handle();
    tokio::spawn(broker.run(CancellationToken::new()));
    let identities = identities(world);
    let access = access(&world.plan)?;
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        attach(&handle, stream, peer, &identities, &access);
    }
}

fn attach(
    handle: &Handle,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    identities: &BTreeMap<IpAddr, Arc<Principal>>,
    access: &Access,
) {
    // A host has the certificate that it has: its address stands for it.
    let principal = match access {
        Access::Open => None,
        Access::Certificates(_) => identities.get(&peer.ip()).cloned(),
    };
    let principal = principal.unwrap_or_else(|| Arc::new(Principal::Anonymous));
    handle.attach(stream, peer, principal, access.clone());
}

/// Whose certificate the host of each address has.
fn identities(world: &World) -> BTreeMap<IpAddr, Arc<Principal>> {
    let certificate = |id: DeviceId, role| Arc::new(Principal::Certificate { id, role });
    let devices = world.plan.devices.len();
    let mut identities: BTreeMap<_, _> = (0..devices)
        .map(|index| {
            let address = turmoil::lookup(name(Host::Device(index)));
            (address, certificate(device_id(index), Role::Device))
        })
        .collect();
    if world.plan.mode == Mode::Subscriber {
        let gateway = DeviceId::new("gateway").expect("it is a name");
        identities.insert(
            turmoil::lookup(name(Host::Gateway)),
            certificate(gateway, Role::Gateway),
        );
    }
    let attacker = match world.plan.attacker {
        Attacker::Thief => Some(0),
        Attacker::Insider => Some(devices),
        Attacker::Nobody | Attacker::Anybody => None,
    };
    if let Some(index) = attacker {
        identities.insert(
            turmoil::lookup(ATTACKER),
            certificate(device_id(index), Role::Device),
        );
    }
    identities
}

fn access(plan: &Plan) -> anyhow::Result<Access> {
    if !plan.certificates {
        return Ok(Access::Open);
    }
    Ok(Access::Certificates(Arc::new(TopicRules {
        telemetry: TopicPattern::new("site/{device}/sensors")?,
        commands: TopicPattern::new("site/{device}/commands")?,
        time: TopicPattern::new("site/{device}/time")?,
        readable: vec!["site/#".to_owned()],
        segment: Box::new(|id| Some(id.to_string())),
    })))
}

struct PassThrough(SharedLedger);

impl Gate for PassThrough {
    async fn admit(&self, publish: Incoming) -> Disposition {
        capture(&self.0, &publish);
        Disposition::Deliver
    }

    fn observe(&self, event: SecurityEvent) {
        observe(&self.0, &event);
    }
}

struct Told(SharedLedger);

impl Watch for Told {
    fn connected(&mut self) {
        open(&self.0).subscribed(elapsed());
    }

    fn disconnected(&mut self, error: &str) {
        let mut ledger = open(&self.0);
        ledger.note(elapsed(), "gateway", &error);
        ledger.count("connections of the gateway lost or not made");
    }
}
