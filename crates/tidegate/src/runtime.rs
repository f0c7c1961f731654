//! What `up` and `gateway` have in common: store, guard, detection, pipeline and web server.

use crate::clock;
use crate::config::Config;
use crate::devices::DevicesFile;
use crate::enrollment::Enrollment;
use crate::level::Level;
use crate::overview::Overview;
use crate::pipeline::{self, Memory, Parts, Pipeline, Threads};
use crate::reload::complaints::Complaints;
use crate::reload::identity::IdentityReload;
use crate::reload::registry::{Follower, RegistryReload};
use crate::reload::tls::InUse;
use crate::reload::watch::Files;
use anyhow::{Context, Result, bail};
use owo_colors::OwoColorize;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::Handle;
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
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Events of earlier runs that the page shows at its start.
const RECENT_EVENTS: u64 = 200;

/// A running pipeline, and a web server that has its ports but answers nobody yet.
pub(crate) struct Runtime {
    /// The way in.
    pub(crate) pipeline: Pipeline,
    threads: Threads,
    registry_reload: RegistryReload,
    complaints: Complaints,
    hub: Hub,
    config: Config,
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
        let read = Files::now(vec![config.files.registry.clone()]);
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
        let (detector, memory) = match detector(config, &registry)? {
            Some((detector, memory)) => (Some(detector), Some(memory)),
            None => (None, None),
        };
        let parts = Parts {
            level: config.level,
            demo,
            verifier: Verifier::new(Arc::clone(&registry), protection, config.verify.max_payload_bytes)
                .with_policy(policy),
            guard: ReplayGuard::new(&registry, policy, loaded, clock::now()),
            detector,
            memory,
            registry: Arc::clone(&registry),
            hub: hub.clone(),
            store,
        };
        let (pipeline, threads) = pipeline::start(parts)?;
        let complaints = Complaints::new(Some(pipeline.journal().clone()));
        let follower = Follower::Pipeline(pipeline.clone());
        let registry_reload = RegistryReload::new(config, follower, read, complaints.clone())?;
        let (page_address, events) = (
            page.local_addr()?,
            compatible.as_ref().map(TcpListener::local_addr).transpose()?,
        );
        let journal = pipeline.journal().clone();
        let server = Server {
            page,
            compatible,
            hub: hub.clone(),
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
            registry_reload,
            complaints,
            hub,
            config: config.clone(),
            server,
            page: page_address,
            events,
            registry,
        })
    }

    /// For whatever else is exchanged while it runs.
    pub(crate) fn complaints(&self) -> Complaints {
        self.complaints.clone()
    }

    /// Opens the page, once whatever feeds the pipeline is there: a page that answers means ready.
    pub(crate) fn open(self, identity: Identity) -> Result<Open> {
        let stop_server = CancellationToken::new();
        let server = tokio::spawn(self.server.run(stop_server.clone()));
        let stop_beside = CancellationToken::new();
        let mut beside = JoinSet::new();
        beside.spawn(self.registry_reload.run(stop_beside.clone()));
        let hub = Some(self.hub);
        identity.spawn(&self.config, hub, self.complaints, &mut beside, &stop_beside)?;
        Ok(Open {
            pipeline: self.pipeline,
            threads: self.threads,
            beside,
            stop_beside,
            server,
            stop_server,
        })
    }
}

/// What identities are made of in this process, for the tasks that look after them.
pub(crate) struct Identity {
    /// None where this is no TLS server.
    pub(crate) in_use: Option<InUse>,
    /// The files of it, as they were before it was read.
    pub(crate) read: Files,
    /// None where another broker has the sessions.
    pub(crate) broker: Option<Handle>,
    /// None where devices cannot enrol here.
    pub(crate) enrollment: Option<Enrollment>,
}

impl Identity {
    /// Starts the tasks: reload, what people see, enrolment.
    pub(crate) fn spawn(
        self,
        config: &Config,
        hub: Option<Hub>,
        complaints: Complaints,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut materials = None;
        if let Some(enrollment) = self.enrollment {
            materials = Some(enrollment.materials);
            let serving = enrollment.service.run(stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the enrolment service ended");
                }
            });
        }
        let broker = self.broker.clone();
        let reload = IdentityReload::new(
            config,
            self.in_use,
            self.read,
            broker,
            materials,
            complaints.clone(),
        )?;
        let overview = Overview::new(config, hub, self.broker, reload.trust(), complaints);
        tasks.spawn(reload.run(stop.clone()));
        tasks.spawn(overview.run(stop.clone()));
        Ok(())
    }
}

/// Everything running.
pub(crate) struct Open {
    pipeline: Pipeline,
    threads: Threads,
    /// Reload, overview, enrolment.
    beside: JoinSet<()>,
    stop_beside: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    stop_server: CancellationToken,
}

impl Open {
    /// Ends everything in the order in which messages travel, so that nothing taken in is lost.
    ///
    /// Whatever feeds the pipeline must have ended.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.stop_beside.cancel();
        while let Some(ended) = self.beside.join_next().await {
            ended?;
        }
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

fn detector(config: &Config, registry: &Registry) -> Result<Option<(Detector, Memory)>> {
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
    let devices = registry.devices().iter().map(|device| &device.id);
    let mut detector = Detector::new(Arc::new(model), devices).with_rules(config.rules.clone());
    let mut reader = Reader::open(&config.files.database()).context("cannot read the database")?;
    let memory = Memory::open(
        config.files.detection_memory(),
        &mut detector,
        registry,
        &mut reader,
    )?;
    Ok(Some((detector, memory)))
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

/// Lets the process hold as many sockets and files as the operating system allows it: soft limits are
/// often 1,024, for the sake of programs that use `select`.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
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
