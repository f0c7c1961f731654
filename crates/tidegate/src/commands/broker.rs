//! `tidegate broker`: the embedded broker alone, for a gateway that subscribes.

use crate::cli::{LevelFlag, Place};
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::reload::complaints::Complaints;
use crate::reload::registry::{Follower, RegistryReload, Segments};
use crate::reload::tls::InUse;
use crate::reload::watch::Files;
use crate::runtime::{self, Identity};
use crate::setup;
use anyhow::{Context, Result};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use tidegate_broker::{
    Access, Broker as MqttBroker, BrokerConfig, Disposition, Gate, Incoming, Limits, Listener, SecurityEvent,
    TopicPattern, TopicRules, Transport,
};
use tidegate_envelope::id::DeviceId;
use tidegate_verify::registry::TopicShape;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Run the MQTT broker alone
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tidegate broker --level mtls
  tidegate gateway --level mtls        in another terminal

The broker checks certificates and topics; the gateway checks messages.")]
pub(crate) struct Broker {
    #[command(flatten)]
    level: LevelFlag,
}

impl Broker {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let (mut config, made) = setup::prepare(place, None)?;
        config.level = self.level.level.unwrap_or(config.level);
        config.refuse_open_door()?;
        if config.level.has_tls() {
            setup::refuse_expired(&config, &[setup::SERVER])?;
        }
        for line in made {
            anstream::println!("made {line}");
        }
        runtime::raise_open_files();
        runtime::tokio_runtime()?.block_on(serve(&config))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve(config: &Config) -> Result<()> {
    let (read_registry, read) = (
        Files::now(vec![config.files.registry.clone()]),
        InUse::files(config),
    );
    let registry = DevicesFile::load(&config.files.registry)?.registry(config)?;
    let in_use = InUse::load(config, false)?;
    let segments = Segments::of(&registry);
    let lookup = segments.clone();
    let segment = move |id: &DeviceId| lookup.find(id);
    let broker = broker_config(config, registry.topics(), segment, in_use.as_ref())?;
    drop(registry);
    let broker = MqttBroker::bind(broker, Arc::new(PassThrough)).with_context(|| cannot_listen(config))?;
    let handle = broker.handle();

    let (stop, mut tasks, complaints) = (CancellationToken::new(), JoinSet::new(), Complaints::new(None));
    let follower = Follower::Broker(segments, handle.clone());
    let reload = RegistryReload::new(config, follower, read_registry, complaints.clone())?;
    tasks.spawn(reload.run(stop.clone()));
    let identity = Identity {
        in_use,
        read,
        broker: Some(handle),
        enrollment: None,
    };
    identity.spawn(config, None, complaints, &mut tasks, &stop)?;
    anstream::println!(
        "Broker at level {} on {}; Ctrl-C to stop",
        config.level,
        config.mqtt_listener()
    );
    tasks.spawn(broker.run(stop.clone()));
    let asked = runtime::asked_to_stop().await;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    asked
}

/// A gate that leaves the messages to whoever subscribes.
struct PassThrough;

impl Gate for PassThrough {
    async fn admit(&self, _publish: Incoming) -> Disposition {
        Disposition::Deliver
    }

    fn observe(&self, event: SecurityEvent) {
        tracing::warn!(reason = %event.reason, peer = %event.peer, detail = event.detail, "refused");
    }
}

/// What to do when the MQTT port cannot be had.
pub(super) fn cannot_listen(config: &Config) -> String {
    let key = if config.level.has_tls() {
        "listen.mqtts_port"
    } else {
        "listen.mqtt_port"
    };
    let address = config.mqtt_listener();
    format!(
        "cannot listen for MQTT on {address} (is another broker running? {key} in tidegate.toml changes the port)"
    )
}

/// The broker of a configuration: one listener, at its level. `segment` gives the topic segment of
/// a registered device.
pub(crate) fn broker_config(
    config: &Config,
    topics: &TopicShape,
    segment: impl Fn(&DeviceId) -> Option<String> + Send + Sync + 'static,
    in_use: Option<&InUse>,
) -> Result<BrokerConfig> {
    let level = config.level;
    let tls = match in_use {
        Some(in_use) if level.has_tls() => Some(
            in_use
                .broker_tls()
                .context("cannot use the server's certificate")?,
        ),
        _ => None,
    };
    let access = if level.has_client_certificates() {
        Access::Certificates(Arc::new(TopicRules {
            telemetry: TopicPattern::new(&config.telemetry_topic)?,
            time: TopicPattern::new(&topics.time("{device}"))?,
            commands: TopicPattern::new(&topics.command("{device}"))?,
            readable: vec![topics.filter()],
            segment: Box::new(segment),
        }))
    } else {
        Access::Open
    };
    let transport = if level.has_tls() {
        Transport::Tls
    } else {
        Transport::Plain
    };
    Ok(BrokerConfig {
        listeners: vec![Listener {
            address: config.mqtt_listener(),
            transport,
            access,
        }],
        tls,
        limits: Limits {
            max_payload_bytes: config.verify.max_payload_bytes,
            ..Limits::default()
        },
    })
}
