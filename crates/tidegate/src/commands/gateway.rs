//! `tidegate gateway`: everything but the broker, subscribed to any broker.

use crate::cli::{LevelFlag, Place};
use crate::config::Config;
use crate::enrollment::{Enrollment, Wanted};
use crate::pipeline::Pipeline;
use crate::reload::complaints::{Complaints, Subject};
use crate::reload::tls::InUse;
use crate::reload::watch::{Cause, Files, Watch};
use crate::runtime::{self, Identity, Runtime};
use crate::{setup, training};
use anyhow::{Context, Result, bail};
use clap::Args;
use rumqttc::{MqttOptions, TlsConfiguration, Transport};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use tidegate_broker::subscriber;
use tidegate_pki::tls::{ClientTls, client_config};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Verify, store, detect and show what another broker delivers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate configs write && mosquitto -c configs/mosquitto_signed.conf
  tidegate gateway --level signed
  tidegate gateway --broker mqtts://broker.example:8883 --ca ca.pem

Messages are acknowledged to the broker only after they are durable.")]
pub(crate) struct Gateway {
    #[command(flatten)]
    level: LevelFlag,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Which broker to connect to, and as whom.
#[derive(Debug, Args)]
pub(crate) struct BrokerFlags {
    /// The broker: mqtt://host:port or mqtts://host:port [default: this machine, at the level's port]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The broker's CA [default: certs/ca.pem]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client certificate [default: the one in certs/]
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A broker's address and how to prove oneself there.
pub(crate) struct BrokerAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Gateway {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let (mut config, made) = setup::prepare(place, None)?;
        config.level = self.level.level.unwrap_or(config.level);
        for line in made {
            anstream::println!("made {line}");
        }
        if config.level.has_detection() {
            training::first_model(place, &config)?;
        }
        runtime::raise_open_files();
        runtime::tokio_runtime()?.block_on(self.serve(&config))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, config: &Config) -> Result<()> {
        let files = Files::now(self.broker.files(config, setup::GATEWAY)?);
        let address = self.broker.address(config, setup::GATEWAY)?;
        let wanted = Wanted::of(config, false);
        let read = InUse::files(config);
        // Only the enrolment service is a TLS server here.
        let in_use = if wanted.is_wanted() {
            InUse::load(config, true)?
        } else {
            None
        };
        let runtime = Runtime::start(config, false).await?;
        let enrollment = Enrollment::open(config, wanted, &runtime.pipeline, in_use.as_ref()).await?;
        anstream::println!("Gateway at level {}", config.level);
        anstream::println!("  page     http://localhost:{}", runtime.page.port());
        if let Some(events) = runtime.events {
            anstream::println!("  events   ws://localhost:{}", events.port());
        }
        if let Some(enrollment) = &enrollment {
            anstream::println!("  enrol    https://localhost:{}", enrollment.address.port());
        }
        anstream::println!("Ctrl-C to stop\n");

        let subscription = Subscription {
            flags: self.broker,
            config: config.clone(),
            filter: runtime.registry.topics().filter(),
            pipeline: Arc::new(runtime.pipeline.clone()),
            files: Watch::new(files)?,
            complaints: runtime.complaints(),
        };
        let open = runtime.open(Identity {
            in_use,
            read,
            broker: None,
            enrollment,
        })?;
        let ended = subscription.run(address).await;
        anstream::eprintln!("\nStopping; committing what has arrived …");
        tokio::time::timeout(runtime::STOP_WITHIN, open.finish())
            .await
            .context("did not stop within 10 s")??;
        ended
    }
}

/// The subscription at the other broker, made anew with changed certificates.
struct Subscription {
    flags: BrokerFlags,
    config: Config,
    filter: String,
    pipeline: Arc<Pipeline>,
    files: Watch,
    complaints: Complaints,
}

impl Subscription {
    /// Until somebody asks for an end, or the broker refuses this gateway for good.
    async fn run(mut self, mut address: BrokerAddress) -> Result<()> {
        let mut asked = pin!(runtime::asked_to_stop());
        loop {
            let stop = CancellationToken::new();
            let mut subscribed = self.subscribe(address, stop.clone());
            address = tokio::select! {
                asked = &mut asked => {
                    asked?;
                    stop.cancel();
                    return Ok(subscribed.await??);
                }
                ended = &mut subscribed => return Ok(ended??),
                changed = self.changed() => changed,
            };
            // The broker keeps what comes in between.
            stop.cancel();
            subscribed.await??;
        }
    }

    fn subscribe(
        &self,
        address: BrokerAddress,
        stop: CancellationToken,
    ) -> JoinHandle<Result<(), subscriber::Refused>> {
        let shown = format!("{}:{}", address.host, address.port);
        let mut options = MqttOptions::new("tidegate-gateway", (address.host.as_str(), address.port));
        if let Some(tls) = address.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        let (pipeline, filter) = (Arc::clone(&self.pipeline), self.filter.clone());
        tokio::spawn(async move {
            let mut watch = Say { broker: shown };
            subscriber::run(options, &filter, &pipeline, stop, &mut watch).await
        })
    }

    /// Waits for other certificates that can be used.
    async fn changed(&mut self) -> BrokerAddress {
        loop {
            if self.files.next().await == Cause::Asked {
                continue;
            }
            match self.flags.address(&self.config, setup::GATEWAY) {
                Ok(address) => {
                    self.complaints.settle(Subject::ClientCertificate);
                    anstream::println!("Took the changed certificates; subscribing again with them");
                    return address;
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    self.complaints.complain(Subject::ClientCertificate, &why);
                }
            }
        }
    }
}

/// Tells people what the connection does.
struct Say {
    broker: String,
}

impl subscriber::Watch for Say {
    fn connected(&mut self) {
        anstream::println!("Subscribed to {}", self.broker);
    }

    fn disconnected(&mut self, error: &str) {
        tracing::warn!(broker = self.broker, error, "not connected; trying again");
    }
}

impl BrokerFlags {
    /// Whether it is the broker of this machine, with the certificates in certs/.
    pub(crate) fn is_own(&self) -> bool {
        self.broker.is_none() && self.ca.is_none() && self.cert.is_none()
    }

    /// The broker's address; TLS with the certificate `identity` where the level asks for it.
    pub(crate) fn address(&self, config: &Config, identity: &str) -> Result<BrokerAddress> {
        let (tls, host, port) = self.place(config)?;
        let tls = if tls {
            let files = self.client_tls(config, identity);
            Some(client_config(&files).context("cannot use the certificates")?)
        } else {
            None
        };
        Ok(BrokerAddress { host, port, tls })
    }

    /// The files that [`address`](Self::address) reads.
    fn files(&self, config: &Config, identity: &str) -> Result<Vec<PathBuf>> {
        let (tls, ..) = self.place(config)?;
        let mut files = Vec::new();
        if tls {
            let ClientTls { ca, identity } = self.client_tls(config, identity);
            files.push(ca);
            files.extend(
                identity
                    .into_iter()
                    .flat_map(|(certificate, key)| [certificate, key]),
            );
        }
        Ok(files)
    }

    /// Whether with TLS, and where.
    fn place(&self, config: &Config) -> Result<(bool, String, u16)> {
        match &self.broker {
            Some(url) => parse(url),
            None => Ok((
                config.level.has_tls(),
                "localhost".to_owned(),
                config.mqtt_listener().port(),
            )),
        }
    }

    fn client_tls(&self, config: &Config, identity: &str) -> ClientTls {
        let at = |file: String| config.files.certs.join(file);
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            _ if config.level.has_client_certificates() => {
                Some((at(format!("{identity}.pem")), at(format!("{identity}-key.pem"))))
            }
            _ => None,
        };
        let ca = self.ca.clone().unwrap_or_else(|| at("ca.pem".into()));
        ClientTls { ca, identity }
    }
}

fn parse(url: &str) -> Result<(bool, String, u16)> {
    let form = || format!("`{url}` is not a broker: write mqtt://host:port or mqtts://host:port");
    let (scheme, rest) = url.split_once("://").with_context(form)?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        _ => bail!(form()),
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().with_context(form)?),
        None => (rest, if tls { 8883 } else { 1883 }),
    };
    if host.is_empty() || host.contains('/') {
        bail!(form());
    }
    Ok((tls, host.trim_matches(['[', ']']).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_urls_are_read_and_others_refused_with_the_form() {
        assert_eq!(parse("mqtt://h").unwrap(), (false, "h".into(), 1883));
        assert_eq!(parse("mqtts://h:9").unwrap(), (true, "h".into(), 9));
        assert_eq!(parse("mqtts://[::1]:9").unwrap(), (true, "::1".into(), 9));
        for wrong in ["h:1883", "http://h", "mqtt://", "mqtt://h:x", "mqtt://h/p"] {
            assert!(
                parse(wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("mqtts://host:port"),
                "{wrong}"
            );
        }
    }
}
