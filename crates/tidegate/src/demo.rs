//! The demo: simulated sensors in every zone, and now and then an attack or a fault.

use crate::clock;
use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_device::publisher::{BrokerAddress, Publisher, PublisherConfig, Signing};
use tidegate_device::sequence::SequenceFile;
use tidegate_device::simulator::{Building, Fault, FaultKind, SensorModel, Zone};
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::time::Timestamp;
use tidegate_lab::attack::Attack;
use tidegate_lab::target::Target;
use tidegate_pki::tls::{ClientTls, client_config};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The simulated building is always the same one.
pub(crate) const SEED: u64 = 20_260_219;
/// Simulated time from one reading to the next, whatever the pause between two messages: the
/// model has learnt how much may change from reading to reading.
pub(crate) const READING_EVERY: Duration = Duration::from_secs(5);
/// How long a stop waits for the last acknowledgements.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);

/// What happens first, seconds after the start, so that a newcomer sees every colour at once.
const OPENING: [(u64, Incident); 4] = [
    (2, Incident::Attack(Attack::Inject)),
    (3, Incident::Surge),
    (5, Incident::Attack(Attack::Replay)),
    (7, Incident::Attack(Attack::Impersonate)),
];
/// What happens afterwards, in turn.
const ROUND: [Incident; 10] = [
    Incident::Fault("flow-surge"),
    Incident::Attack(Attack::NoCertificate),
    Incident::Fault("stuck-sensor"),
    Incident::Attack(Attack::Inject),
    Incident::Fault("high-pressure"),
    Incident::Attack(Attack::HostilePayload),
    Incident::Fault("broken-correlation"),
    Incident::Attack(Attack::Replay),
    Incident::Fault("slow-drift"),
    Incident::Attack(Attack::Impersonate),
];
/// Pause between two incidents of a round.
const PAUSE: Duration = Duration::from_secs(12);
/// Readings that a fault of the round lasts for.
const FAULTY_READINGS: u32 = 40;
/// A surge that no pipe of this building should see, PSI.
const SURGE_PSI: std::ops::RangeInclusive<f64> = 155.0..=175.0;
/// Readings that the surge lasts for.
const SURGE_READINGS: u32 = 2;

/// Something out of the ordinary.
#[derive(Debug, Clone, Copy)]
enum Incident {
    /// Somebody attacks.
    Attack(Attack),
    /// A sensor fails in this way.
    Fault(&'static str),
    /// Pressure far beyond any limit.
    Surge,
}

/// The demo before it runs.
pub(crate) struct Demo {
    config: Config,
    interval: Duration,
}

impl Demo {
    /// A demo of the devices in the registry; each publishes once per `interval`.
    pub(crate) fn new(config: &Config, interval: Duration) -> Self {
        Self {
            config: config.clone(),
            interval,
        }
    }
}

/// Runs sensors and incidents until `stop`.
pub(crate) async fn run(demo: Demo, stop: CancellationToken) -> Result<()> {
    let registry = DevicesFile::load(&demo.config.files.registry)?;
    let devices: Vec<_> = registry
        .devices
        .into_iter()
        .filter(|device| device.enabled)
        .collect();
    let mut sensors = tokio::task::JoinSet::new();
    let mut faults = Vec::new();
    let count = u32::try_from(devices.len()).unwrap_or(u32::MAX).max(1);
    for (position, entry) in devices.iter().enumerate() {
        let sensor = SimulatedSensor::open(&demo.config, entry, local_broker(&demo.config, entry)?)?;
        let (sender, receiver) = mpsc::channel(4);
        faults.push(sender);
        // Sensors speak one after the other, not all at once.
        let offset = demo.interval * u32::try_from(position).unwrap_or(0) / count;
        let (interval, stop) = (demo.interval, stop.clone());
        sensors.spawn(async move { sensor.run(offset, interval, receiver, stop).await });
    }
    tokio::select! {
        () = incidents(&demo.config, &devices, &faults) => {}
        () = stop.cancelled() => {}
    }
    while let Some(ended) = sensors.join_next().await {
        ended??;
    }
    Ok(())
}

/// A publisher with a simulated sensor behind it.
pub(crate) struct SimulatedSensor {
    publisher: Publisher,
    events: mpsc::Receiver<tidegate_device::publisher::Event>,
    model: SensorModel,
    /// Simulated time of the next reading.
    next: Timestamp,
    fault: Option<Fault>,
    entry: DeviceEntry,
    failing: bool,
}

impl SimulatedSensor {
    /// Opens the device's counters and starts connecting.
    pub(crate) fn open(config: &Config, entry: &DeviceEntry, broker: BrokerAddress) -> Result<Self> {
        let id = DeviceId::new(&entry.id)?;
        let folder = config.files.publishers();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let sequence = SequenceFile::open(&folder.join(format!("{id}.sequence")), &id)?;
        let signing = if config.level.has_signatures() {
            Some(Signing {
                key: entry.signing_key(config)?,
                epoch: KeyEpoch(entry.key_epoch),
            })
        } else {
            None
        };
        let topic = config.telemetry_topic.replace("{device}", &entry.topic);
        let message_id = MessageDeviceId::new(&entry.message_id)?;
        let model = Building::new(SEED).sensor(Zone::of(&ZoneId::new(&entry.zone)?), &id);
        let (publisher, events) = Publisher::start(
            PublisherConfig::new(id, message_id, topic, broker, signing),
            sequence,
        )?;
        Ok(Self {
            publisher,
            events,
            model,
            next: clock::now(),
            fault: None,
            entry: entry.clone(),
            failing: false,
        })
    }

    /// Publishes once per `interval` until `stop`, then waits for the last acknowledgements.
    pub(crate) async fn run(
        mut self,
        offset: Duration,
        interval: Duration,
        mut faults: mpsc::Receiver<(FaultKind, u32)>,
        stop: CancellationToken,
    ) -> Result<()> {
        let mut ticks = tokio::time::interval_at(Instant::now() + offset, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.publish()?,
                Some((kind, readings)) = faults.recv() => {
                    let duration = READING_EVERY * readings;
                    self.fault = Some(Fault::new(kind, self.next, duration, SEED));
                }
                Some(event) = self.events.recv() => self.report(&event),
                () = stop.cancelled() => break,
            }
        }
        let left = self.publisher.close(LAST_ACKNOWLEDGEMENTS).await;
        if left > 0 {
            tracing::warn!(device = self.entry.id, left, "messages were not acknowledged");
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let mut channels = self.model.sample(self.next);
        if let Some(fault) = &mut self.fault {
            channels = fault.apply(self.next, channels);
        }
        self.next = self.next.plus(READING_EVERY);
        self.publisher
            .publish(clock::now(), "operational", &channels)
            .with_context(|| format!("cannot publish for {}", self.entry.id))?;
        Ok(())
    }

    /// Says once what goes wrong, and once when it works again.
    fn report(&mut self, event: &tidegate_device::publisher::Event) {
        use tidegate_device::publisher::Event;
        let device = self.entry.id.as_str();
        match event {
            Event::Disconnected { detail, retry_in, .. } if !self.failing => {
                self.failing = true;
                tracing::warn!(device, detail, ?retry_in, "not connected; trying again");
            }
            Event::Connected { .. } if self.failing => {
                self.failing = false;
                tracing::warn!(device, "connected again");
            }
            Event::Refused { sequence, code } => {
                tracing::warn!(device, %sequence, code = format!("{code:#04x}"), "refused by the broker");
            }
            Event::Dropped { sequence, why } => tracing::warn!(device, %sequence, ?why, "dropped"),
            _ => tracing::debug!(device, ?event, "publisher"),
        }
    }
}

/// The broker of this very process, with the device's own certificate.
fn local_broker(config: &Config, entry: &DeviceEntry) -> Result<BrokerAddress> {
    let at = |file: String| config.files.certs.join(file);
    let tls = if config.level.has_tls() {
        let identity = config.level.has_client_certificates().then(|| {
            (
                at(format!("{}.pem", entry.id)),
                at(format!("{}-key.pem", entry.id)),
            )
        });
        Some(client_config(&ClientTls {
            ca: at("ca.pem".into()),
            identity,
        })?)
    } else {
        None
    };
    Ok(BrokerAddress {
        host: "localhost".into(),
        port: config.mqtt_listener().port(),
        tls,
    })
}

type Faults = mpsc::Sender<(FaultKind, u32)>;

/// Attacks and faults, for as long as it is polled.
async fn incidents(config: &Config, devices: &[DeviceEntry], faults: &[Faults]) {
    if devices.is_empty() {
        return std::future::pending().await;
    }
    let target = Arc::new(target(config));
    let start = Instant::now();
    let mut turn = 0;
    for (after_s, incident) in OPENING {
        tokio::time::sleep_until(start + Duration::from_secs(after_s)).await;
        happen(incident, turn, &target, devices, faults).await;
        turn += 1;
    }
    for incident in ROUND.into_iter().cycle() {
        tokio::time::sleep(PAUSE).await;
        happen(incident, turn, &target, devices, faults).await;
        turn += 1;
    }
}

async fn happen(
    incident: Incident,
    turn: usize,
    target: &Arc<Target>,
    devices: &[DeviceEntry],
    faults: &[Faults],
) {
    let place = turn % devices.len();
    let victim = devices[place].topic.clone();
    let (kind, readings) = match incident {
        Incident::Attack(attack) => {
            let other = devices[(place + 1) % devices.len()].topic.clone();
            let target = Arc::clone(target);
            // Carried out beside the sensors; a slow attack delays nothing.
            tokio::spawn(async move {
                match attack.run(&target, &victim, &other).await {
                    Ok(outcome) => tracing::info!(%attack, ?outcome, "attack"),
                    Err(error) => tracing::info!(%attack, %error, "attack was not carried out"),
                }
            });
            return;
        }
        Incident::Fault(name) => match FaultKind::from_name(name) {
            Some(kind) => (kind, FAULTY_READINGS),
            None => return,
        },
        Incident::Surge => (FaultKind::HighPressure(SURGE_PSI), SURGE_READINGS),
    };
    tracing::info!(fault = kind.as_str(), device = victim, "fault");
    // A sensor that still works off earlier faults gets no further one.
    drop(faults[place].try_send((kind, readings)));
}

fn target(config: &Config) -> Target {
    Target {
        host: "localhost".into(),
        port: config.mqtt_listener().port(),
        tls: config.level.has_tls(),
        certs: Path::new(&config.files.certs).to_owned(),
        telemetry_topic: config.telemetry_topic.clone(),
    }
}
