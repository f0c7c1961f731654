//! `tidegate up`: broker, gateway, store, detection and web server in one process.

use crate::cli::{LevelFlag, Place};
use crate::config::Config;
use crate::demo::{self, Demo};
use crate::enrollment::{Enrollment, Wanted};
use crate::level::Level;
use crate::reload::tls::InUse;
use crate::runtime::{self, Identity, Runtime};
use crate::{setup, training};
use anyhow::{Context, Result};
use clap::Args;
use owo_colors::OwoColorize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tidegate_broker::Broker;
use tokio_util::sync::CancellationToken;

use super::broker::{broker_config, cannot_listen};

/// Run everything on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidegate up --demo                        simulated sensors, now and then an attack or a fault
  tidegate up --demo --level plain          the same without protection
  tidegate --dir /srv/tidegate up           your own devices

The first run makes what is missing: configuration, keys, certificates, registry, model, database.
Changed certificates, CAs, revocation lists and devices.toml are taken within a second, and on
SIGHUP at once. Ctrl-C stops it; nothing
that was acknowledged is lost.")]
pub(crate) struct Up {
    #[command(flatten)]
    level: LevelFlag,
    /// Simulate water sensors, and now and then an attack or a fault
    #[arg(long)]
    demo: bool,
    /// How many devices there are at least [default: 12 on the first run]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    devices: Option<u32>,
    /// Pause between two messages of a simulated sensor
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: std::time::Duration,
}

impl Up {
    pub(crate) fn run(self, place: &Place) -> Result<ExitCode> {
        let (mut config, mut made) = setup::prepare(place, self.devices)?;
        config.level = self.level.level.unwrap_or(config.level);
        if config.level.has_detection() && training::first_model(place, &config)? {
            made.push(format!("model          {}", config.files.model().display()));
        }
        if config.level.has_tls() {
            setup::refuse_expired(&config, &[setup::SERVER])?;
        }
        runtime::raise_open_files();
        runtime::tokio_runtime()?.block_on(self.serve(&config, &made, &place.dir))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, config: &Config, made: &[String], dir: &Path) -> Result<()> {
        let wanted = Wanted::of(config, true);
        let read = InUse::files(config);
        let in_use = InUse::load(config, wanted.is_wanted())?;
        let runtime = Runtime::start(config, self.demo).await?;
        let segment = runtime.pipeline.segment_lookup();
        let broker = broker_config(config, runtime.registry.topics(), segment, in_use.as_ref())?;
        let broker = Broker::bind(broker, Arc::new(runtime.pipeline.clone()))
            .with_context(|| cannot_listen(config))?;
        let enrollment = Enrollment::open(config, wanted, &runtime.pipeline, in_use.as_ref()).await?;
        greet(config, &runtime, enrollment.as_ref(), made, self.demo, dir);
        let open = runtime.open(Identity {
            in_use,
            read,
            broker: Some(broker.handle()),
            enrollment,
        })?;

        let stop = CancellationToken::new();
        let mut broker = tokio::spawn(broker.run(stop.clone()));
        let demo = self.demo.then(|| {
            let demo = Demo::new(config, self.interval);
            tokio::spawn(demo::run(demo, stop.child_token()))
        });
        tokio::select! {
            asked = runtime::asked_to_stop() => asked?,
            ended = &mut broker => {
                ended?;
                anyhow::bail!("the broker ended by itself");
            }
        }
        anstream::eprintln!("\nStopping; committing what has arrived …");
        stop.cancel();
        let finish = async {
            if let Some(demo) = demo {
                demo.await?.context("the simulated sensors ended")?;
            }
            broker.await?;
            open.finish().await
        };
        tokio::time::timeout(runtime::STOP_WITHIN, finish)
            .await
            .context("did not stop within 10 s")??;
        anstream::eprintln!("Stopped. Nothing that was acknowledged is lost.");
        Ok(())
    }
}

fn greet(
    config: &Config,
    runtime: &Runtime,
    enrollment: Option<&Enrollment>,
    made: &[String],
    demo: bool,
    dir: &Path,
) {
    let level = config.level;
    anstream::println!("{} at level {}", "Tidegate".bold(), level.bold());
    if !made.is_empty() {
        anstream::println!("\nMade on this first run:");
        for line in made {
            anstream::println!("  {line}");
        }
    }
    anstream::println!("\nListening:");
    let scheme = if level.has_tls() { "mqtts" } else { "mqtt" };
    anstream::println!(
        "  sensors  {scheme}://localhost:{}",
        config.mqtt_listener().port()
    );
    anstream::println!(
        "  page     {}",
        format!("http://localhost:{}", runtime.page.port()).cyan().bold()
    );
    if let Some(events) = runtime.events {
        anstream::println!("  events   ws://localhost:{}", events.port());
    }
    if let Some(enrollment) = enrollment {
        anstream::println!("  enrol    https://localhost:{}", enrollment.address.port());
    }
    anstream::println!("\nLayers:");
    for (name, on) in layers(level) {
        let state = if on {
            "on ".green().to_string()
        } else {
            "off".red().to_string()
        };
        anstream::println!("  {state}  {name}");
    }
    anstream::println!("\nTry next:");
    let program = if dir == Path::new(".") {
        "tidegate".to_owned()
    } else {
        format!("tidegate -C {}", dir.display())
    };
    for (command, what) in hints(level, demo) {
        anstream::println!("  {:<44} {what}", format!("{program} {command}"));
    }
    anstream::println!("  Ctrl-C to stop\n");
}

fn layers(level: Level) -> [(&'static str, bool); 5] {
    [
        ("TLS: the link is encrypted, the broker proven", level.has_tls()),
        (
            "client certificates, topics bound to them",
            level.has_client_certificates(),
        ),
        (
            "signatures, a 30 s time window, rising sequence numbers",
            level.has_signatures(),
        ),
        ("size limits, strict format, durable before acknowledged", true),
        ("rules and isolation forest", level.has_detection()),
    ]
}

fn hints(level: Level, demo: bool) -> [(&'static str, &'static str); 3] {
    let second = if demo && level.has_signatures() {
        ("up --demo --level plain", "the same attacks, without protection")
    } else if demo {
        ("up --demo", "every layer on: the same attacks are stopped")
    } else {
        ("sensor --device device-001", "publish from a simulated sensor")
    };
    [
        ("events", "what was stopped or flagged, and why"),
        second,
        ("check", "is everything in order?"),
    ]
}
