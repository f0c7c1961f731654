//! What `up` and `gateway` have in common: store, guard, detection, pipeline and web server.

use crate::clock;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::level::Level;
use crate::pipeline::{self, Parts, Pipeline, Threads};
use crate::reload::{Fingerprint, Reload};
use anyhow::{Context, Result, bail};
use owo_colors::OwoColorize;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tidegate_detect::detector::Detector;
use tidegate_detect::model::Model;
use tidegate_envelope::reason::Layer;
use tidegate_serve::access::Access;
use tidegate_serve::hub::{DeviceOptions, Hub, HubOptions, ZoneOptions};
use tidegate_serve::protocol::Totals;
use tidegate_serve::server::Server;
use tidegate_store::event::Outcome;
use tidegate_store::maintenance::Retention;
use tidegate_store::reader::{EventQuery, Order, Reader};
use tidegate_store::writer::{Options, Store};
use tidegate_verify::guard::{GuardPolicy, ReplayGuard};
use tidegate_verify::log::ReplayLog;
use tidegate_verify::registry::Registry;
use tidegate_verify::verifier::{Protection, Verifier};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Events of earlier runs that the page shows at its start.
const RECENT_EVENTS: u64 = 200;

/// A running pipeline, and a web server that has its ports but answers nobody yet.
pub(crate) struct Runtime {
    /// The way in.
    pub(crate) pipeline: Pipeline,
    threads: Threads,
    reload: Reload,
    server: Server,
    /// Where the page is.
    pub(crate) page: SocketAddr,
    /// Where the compatible events are.
    pub(crate) events: Option<SocketAddr>,
    /// Who may speak.
    pub(crate) registry: Arc<Registry>,
}

impl Runtime {
    /// Opens everything that `config` names. Nothing is fed in yet.
    pub(crate) async fn start(config: &Config, demo: bool) -> Result<Self> {
        config.refuse_open_door()?;
        let page = listen(config.page_listener(), "listen.page_port").await?;
        let compatible = match config.events_listener() {
            Some(address) => Some(listen(address, "listen.events_port").await?),
            None => None,
        };
        let read = Fingerprint::of(&config.files.registry);
        let registry = Arc::new(DevicesFile::load(&config.files.registry)?.registry(config)?);
        let mut store = open_store(config, &registry)?;
        let loaded = store.load().context("cannot read the database")?;
        let reader = Reader::open(&config.files.database()).context("cannot read the database")?;
        let notes = notes(config);
        for note in &notes {
            anstream::eprintln!("{} {note}", "warning:".yellow().bold());
        }
        let hub = Hub::new(hub_options(config, &registry, &store, reader, demo, notes)?);

        let protection = if config.level.has_signatures() {
            Protection::Signed
        } else {
            Protection::Unprotected
        };
        let policy = GuardPolicy {
            window: config.verify.window,
            skew: config.verify.skew,
        };
        let parts = Parts {
            level: config.level,
            demo,
            verifier: Verifier::new(Arc::clone(&registry), protection, config.verify.max_payload_bytes)
                .with_policy(policy),
            guard: ReplayGuard::new(&registry, policy, loaded, clock::now()),
            detector: detector(config, &registry)?,
            registry: Arc::clone(&registry),
            hub: hub.clone(),
            store,
        };
        let (pipeline, threads) = pipeline::start(parts)?;
        let reload = Reload::new(config, pipeline.clone(), read)?;
        let (page_address, events) = (
            page.local_addr()?,
            compatible.as_ref().map(TcpListener::local_addr).transpose()?,
        );
        let journal = pipeline.journal().clone();
        let server = Server {
            page,
            compatible,
            hub,
            reader: Reader::open(&config.files.database()).context("cannot read the database")?,
            access: Access {
                allowed_hosts: config.listen.page_hosts.clone(),
            },
            on_denied: Arc::new(move |denied| {
                journal.publish(pipeline::origin_denied(denied.to_string(), clock::now()));
            }),
        };
        Ok(Self {
            pipeline,
            threads,
            reload,
            server,
            page: page_address,
            events,
            registry,
        })
    }

    /// Opens the page, once whatever feeds the pipeline is there: a page that answers means ready.
    pub(crate) fn open(self) -> Open {
        let stop_server = CancellationToken::new();
        let server = tokio::spawn(self.server.run(stop_server.clone()));
        let stop_reload = CancellationToken::new();
        let reload = tokio::spawn(self.reload.run(stop_reload.clone()));
        Open {
            pipeline: self.pipeline,
            threads: self.threads,
            reload,
            stop_reload,
            server,
            stop_server,
        }
    }
}

/// Everything running.
pub(crate) struct Open {
    pipeline: Pipeline,
    threads: Threads,
    reload: JoinHandle<()>,
    stop_reload: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    stop_server: CancellationToken,
}

impl Open {
    /// Ends everything in the order in which messages travel, so that nothing taken in is lost.
    ///
    /// Whatever feeds the pipeline must have ended.
    pub(crate) async fn finish(self) -> Result<()> {
        self.stop_reload.cancel();
        self.reload.await?;
        drop(self.pipeline);
        let store = tokio::task::spawn_blocking(|| self.threads.finish()).await?;
        self.stop_server.cancel();
        self.server.await?.context("the web server ended")?;
        let Some(store) = store else {
            bail!("the gate thread ended early; what it had not committed is lost")
        };
        store.close().context("cannot close the database")
    }
}

/// Binds a port, and says which configuration key to change when somebody else has it.
pub(crate) async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {} is in use on {}; stop what listens there (is another tidegate running?), or set {key} in tidegate.toml",
            address.port(),
            address.ip()
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot listen on {address} ({key} in tidegate.toml)"))
        }
    }
}

fn open_store(config: &Config, registry: &Registry) -> Result<Store> {
    let devices: Vec<_> = registry
        .devices()
        .iter()
        .map(|device| device.id.clone())
        .collect();
    let retention = Retention {
        max_age: Some(config.retention.max_age),
        max_bytes: Some(config.retention.max_bytes),
    };
    let options = Options {
        retention,
        ..Options::default()
    };
    Store::open(&config.files.database(), &devices, &options).context("cannot open the database")
}

fn detector(config: &Config, registry: &Registry) -> Result<Option<Detector>> {
    if !config.level.has_detection() {
        return Ok(None);
    }
    let path = config.files.model();
    let model = Model::load(&path).with_context(|| {
        format!(
            "cannot load the model {}; `tidegate detect train --from simulator` makes a new one",
            path.display()
        )
    })?;
    Ok(Some(Detector::new(
        Arc::new(model),
        registry.devices().iter().map(|device| &device.id),
    )))
}

fn hub_options(
    config: &Config,
    registry: &Registry,
    store: &Store,
    mut reader: Reader,
    demo: bool,
    notes: Vec<String>,
) -> Result<HubOptions> {
    let zones = registry
        .zones()
        .iter()
        .map(|zone| {
            let here = registry.devices().iter().filter(|device| device.zone == zone.id);
            let devices = here
                .map(|device| DeviceOptions {
                    id: device.id.clone(),
                    message_id: device.message_id.clone(),
                })
                .collect();
            ZoneOptions {
                id: zone.id.clone(),
                name: zone.name.clone(),
                devices,
            }
        })
        .collect();
    let mut recent = Vec::new();
    let newest = EventQuery {
        limit: Some(RECENT_EVENTS),
        order: Order::NewestFirst,
        ..EventQuery::default()
    };
    reader.events(&newest, |event| {
        recent.push(event);
        ControlFlow::Continue(())
    })?;
    recent.reverse();
    let totals = store.totals();
    let flagged = totals.of(Outcome::Flagged);
    Ok(HubOptions {
        site: config.site.clone(),
        level: config.level.name().into(),
        demo,
        layers: layers(config.level),
        zones,
        totals: Totals {
            accepted: totals.of(Outcome::Accepted).saturating_sub(flagged),
            flagged,
            blocked: totals.of(Outcome::Blocked),
            got_in: 0,
        },
        recent,
        notes,
        clock: clock::now,
    })
}

/// The layers that are on at a level.
pub(crate) fn layers(level: Level) -> Vec<Layer> {
    let mut on = vec![Layer::Limits, Layer::Format, Layer::Durability, Layer::Dashboard];
    if level.has_tls() {
        on.push(Layer::Tls);
    }
    if level.has_client_certificates() {
        on.push(Layer::Identity);
    }
    if level.has_signatures() {
        on.extend([Layer::Signature, Layer::Freshness, Layer::Sequence]);
    }
    if level.has_detection() {
        on.push(Layer::Detection);
    }
    on
}

fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(path) = config
        .legacy_shared_secret
        .as_ref()
        .filter(|_| config.level.has_signatures())
    {
        notes.push(format!(
            "All devices share one secret ({}): whoever takes one device can speak for all of them",
            path.display()
        ));
    }
    notes
}

/// Waits for Ctrl-C or a request to stop from the service manager.
pub(crate) async fn asked_to_stop() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot watch for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
        gone = terminal_gone() => gone,
    }
}

/// Waits until the terminal that this was started from is gone.
///
/// The kernel says so with SIGHUP, which a service manager sends to have files read again. The
/// terminal tells which is meant: it cannot be opened any more.
async fn terminal_gone() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let terminal_is_there = || std::fs::File::open("/dev/tty").is_ok();
    let had_one = terminal_is_there();
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
    loop {
        hangup.recv().await;
        if had_one && !terminal_is_there() {
            return Ok(());
        }
    }
}

/// The async runtime of a subcommand.
pub(crate) fn tokio_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// How long a stop may take before the rest is cut off.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);
