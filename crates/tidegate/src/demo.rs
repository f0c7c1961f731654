//! The demo: simulated sensors in every zone, and now and then an attack or a fault.

mod sensor;

use crate::config::Config;
use crate::devices::{DeviceEntry, DevicesFile};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_device::publisher::BrokerAddress;
use tidegate_device::simulator::FaultKind;
use tidegate_lab::attack::Attack;
use tidegate_lab::target::Target;
use tidegate_pki::tls::{ClientTls, client_config};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use sensor::{Manner, READING_EVERY, SEED, SimulatedSensor, Tag, Time};

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
        let sensor = SimulatedSensor::open(
            &demo.config,
            entry,
            local_broker(&demo.config, entry)?,
            Manner::default(),
        )?;
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
