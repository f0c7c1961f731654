//! `tidegate sensor`: the defended publisher, with a simulated sensor behind it.

use super::gateway::BrokerFlags;
use crate::cli::{LevelFlag, Place};
use crate::config::Config;
use crate::demo::{Manner, SimulatedSensor, Tag, Time};
use crate::devices::{DeviceEntry, DevicesFile, MessageFormat};
use crate::{clock, runtime};
use anyhow::{Result, bail};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidegate_device::enrollment::{IdentityFiles, Server};
use tidegate_device::publisher::BrokerAddress;
use tidegate_device::renewal::RenewalConfig;
use tidegate_device::simulator::FaultKind;
use tidegate_envelope::id::DeviceId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Publish from simulated sensors: signed, timestamped, counted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate sensor --device device-001
  tidegate sensor --count 5 --interval 500ms
  tidegate sensor --device device-001 --fault slow-drift
  tidegate sensor --device device-001 --tag short --time echo
  tidegate sensor --broker mqtts://broker.example:8883 --ca ca.pem --device device-001
  tidegate sensor --broker mqtts://broker.example:8883 --device device-001 --renew broker.example:8443

Each device uses its own certificate and key from here, and keeps its counters in data/publishers.
With --renew it exchanges them for new ones at two thirds of the certificate's life, and goes on
without losing a message; `tidegate certs enroll` fetches the first one. The CA in certs/ is kept
up to date in the same way.")]
pub(crate) struct Sensor {
    #[command(flatten)]
    level: LevelFlag,
    #[command(flatten)]
    broker: BrokerFlags,
    /// A registered device; may be given several times
    #[arg(long, value_name = "ID")]
    device: Vec<String>,
    /// Instead of --device: the first so many of the registry
    #[arg(long, conflicts_with = "device", value_parser = clap::value_parser!(u16).range(1..))]
    count: Option<u16>,
    /// Pause between two messages of a device
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Let the sensors fail: high-pressure, low-pressure, stuck-sensor, flow-surge, flow-drop, slow-drift, broken-correlation
    #[arg(long, value_name = "KIND")]
    fault: Option<String>,
    /// How messages are written; without it, as the registry entry says
    #[arg(long, value_enum)]
    format: Option<MessageFormat>,
    /// How much of its MAC a cose-v1 message carries
    #[arg(long, value_enum, default_value_t)]
    tag: Tag,
    /// Renew certificates in time at this gateway's enrolment service [default: the one of this
    /// machine, where enroll.enabled in tidegate.toml is true]
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["ca", "cert", "key"])]
    renew: Option<Server>,
    /// Where the sensors have their time from
    #[arg(long, value_enum, default_value_t)]
    time: Time,
}

impl Sensor {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let mut config = place.load()?;
        config.level = self.level.level.unwrap_or(config.level);
        if self.interval.is_zero() {
            bail!("--interval 0s is too short; 1ms is the least");
        }
        let fault = match self.fault.as_deref() {
            None => None,
            Some(name) => match FaultKind::from_name(name) {
                Some(kind) => Some(kind),
                None => bail!(
                    "there is no fault `{name}`; faults are {}",
                    FaultKind::NAMES.join(", ")
                ),
            },
        };
        if self.renew.is_some() && !config.level.has_client_certificates() {
            bail!(
                "the level {} has no client certificates to renew: leave --renew out, or take --level mtls",
                config.level
            );
        }
        let registry = DevicesFile::load(&config.files.registry)?;
        let mut entries = Vec::new();
        for id in &self.device {
            entries.push(registry.find(id)?);
        }
        if entries.is_empty() {
            entries.extend(registry.devices.iter().take(usize::from(self.count.unwrap_or(1))));
        }
        if entries.is_empty() {
            bail!("the registry {} has no device", config.files.registry.display());
        }
        runtime::tokio_runtime()?.block_on(async {
            let stop = CancellationToken::new();
            let mut sensors = tokio::task::JoinSet::new();
            for entry in entries {
                let address = self.broker.address(&config, &entry.id)?;
                let broker = BrokerAddress {
                    host: address.host,
                    port: address.port,
                    tls: address.tls,
                };
                let manner = Manner {
                    format: self.format,
                    tag: self.tag,
                    time: self.time,
                };
                let renewal = self.renewal(&config, entry)?;
                if renewal.is_some() && broker.tls.is_none() {
                    bail!("a certificate is used with TLS only: write mqtts:// in --broker, or leave --renew out");
                }
                let sensor = SimulatedSensor::open_renewing(&config, entry, broker, manner, renewal)?;
                let (faults, receiver) = mpsc::channel(1);
                if let Some(kind) = &fault {
                    faults.send((kind.clone(), u32::MAX)).await?;
                }
                let (interval, stop) = (self.interval, stop.clone());
                // The sender lives as long as the sensor, which would else see its channel closed.
                sensors.spawn(async move {
                    let _faults = faults;
                    sensor.run(Duration::ZERO, interval, receiver, stop).await
                });
                anstream::println!(
                    "{} publishes every {}",
                    entry.id,
                    humantime::format_duration(interval)
                );
            }
            anstream::println!("Ctrl-C to stop");
            tokio::select! {
                asked = runtime::asked_to_stop() => asked?,
                ended = sensors.join_next() => if let Some(ended) = ended { ended??; },
            }
            stop.cancel();
            while let Some(ended) = sensors.join_next().await {
                ended??;
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    /// How a device's certificate is renewed, where it is: at the service that was named, or at the
    /// one of this machine where the configuration turns it on.
    fn renewal(&self, config: &Config, entry: &DeviceEntry) -> Result<Option<RenewalConfig>> {
        let port = config.enroll.port;
        let own = config.enroll.enabled == Some(true)
            && port != 0
            && config.level.has_client_certificates()
            && self.broker.is_own();
        let server = match &self.renew {
            Some(server) => server.clone(),
            None if own => Server {
                host: "localhost".into(),
                port,
            },
            None => return Ok(None),
        };
        let files = IdentityFiles::new(&config.files.certs, &DeviceId::new(&entry.id)?)?;
        Ok(Some(RenewalConfig::new(server, files, Arc::new(clock::now))))
    }
}
