//! `tidegate broker`: the embedded broker alone, for a gateway that subscribes.

use crate::cli::{LevelFlag, Place};
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::{runtime, setup};
use anyhow::{Context, Result};
use clap::Args;
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use tidegate_broker::{
    Access, Broker as MqttBroker, BrokerConfig, Disposition, Gate, Incoming, Limits, Listener, SecurityEvent,
    TopicPattern, TopicRules, Transport,
};
use tidegate_envelope::id::DeviceId;
use tidegate_pki::tls::{ClientAuth, ServerTls, server_config};
use tidegate_verify::registry::TopicShape;
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
        let registry = DevicesFile::load(&config.files.registry)?.registry(&config)?;
        runtime::tokio_runtime()?.block_on(async {
            let segments: HashMap<_, _> = registry
                .devices()
                .iter()
                .map(|device| (device.id.clone(), device.topic_segment.to_string()))
                .collect();
            let segment = move |id: &DeviceId| segments.get(id).cloned();
            let broker = broker_config(&config, registry.topics(), segment)?;
            let broker =
                MqttBroker::bind(broker, Arc::new(PassThrough)).with_context(|| cannot_listen(&config))?;
            anstream::println!(
                "Broker at level {} on {}; Ctrl-C to stop",
                config.level,
                config.mqtt_listener()
            );
            let stop = CancellationToken::new();
            let running = tokio::spawn(broker.run(stop.clone()));
            runtime::asked_to_stop().await?;
            stop.cancel();
            running.await?;
            Ok(ExitCode::SUCCESS)
        })
    }
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
) -> Result<BrokerConfig> {
    let level = config.level;
    let at = |file: &str| config.files.certs.join(file);
    let tls = if level.has_tls() {
        let client_auth = level.has_client_certificates().then(|| ClientAuth {
            ca: at("ca.pem"),
            crl: None,
        });
        let files = ServerTls {
            certificate: at("server.pem"),
            key: at("server-key.pem"),
            client_auth,
        };
        Some(server_config(&files).context("cannot use the server's certificate")?)
    } else {
        None
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
