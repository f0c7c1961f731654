//! The enrolment service of `up` and `gateway`: what it is made of, and what it tells the journal.

use crate::clock;
use crate::config::{Config, Enroll};
use crate::pipeline::{self, Pipeline};
use crate::reload::tls::InUse;
use crate::runtime;
use crate::setup::{Ca, CaPaths};
use anyhow::{Context, Result, bail};
use owo_colors::OwoColorize;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_enroll::event::Event;
use tidegate_enroll::limits::Limits;
use tidegate_enroll::service::{Material, Service, Standing};
use tidegate_enroll::tokens::Tokens;
use tidegate_envelope::id::DeviceId;
use tidegate_pki::authority::Authority;
use tidegate_pki::ledger::Ledger;
use tidegate_verify::registry::Registry;
use tokio::sync::watch;

/// Whether the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It does not.
    No,
    /// Nobody asked for it, so whatever is in its way only turns it off.
    IfPossible,
    /// The configuration says so.
    Yes,
}

impl Wanted {
    /// What the configuration says. `by_default` says whether the command runs it unless told not to;
    /// it then needs a level at which certificates count, and stays on this machine.
    pub(crate) fn of(config: &Config, by_default: bool) -> Self {
        let fits = config.level.has_client_certificates() && config.listen.mqtt_address.is_loopback();
        match config.enroll.enabled {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None if by_default && fits && CaPaths::of(config).has_key() => Self::IfPossible,
            None => Self::No,
        }
    }

    /// Whether it may run.
    pub(crate) fn is_wanted(self) -> bool {
        self != Self::No
    }
}

/// The service, its port open.
pub(crate) struct Enrollment {
    /// Where devices reach it.
    pub(crate) address: SocketAddr,
    /// For changes of certificate and CA.
    pub(crate) materials: Materials,
    /// To be run.
    pub(crate) service: Service,
}

impl Enrollment {
    /// Opens the port; `None` where it is not wanted, or not possible and nobody asked for it.
    pub(crate) async fn open(
        config: &Config,
        wanted: Wanted,
        pipeline: &Pipeline,
        in_use: Option<&InUse>,
    ) -> Result<Option<Self>> {
        let (Some(in_use), true) = (in_use, wanted.is_wanted()) else {
            return Ok(None);
        };
        match Self::try_open(config, pipeline, in_use).await {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if wanted == Wanted::IfPossible => {
                anstream::eprintln!(
                    "{} devices cannot enrol here: {error:#}",
                    "warning:".yellow().bold()
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn try_open(config: &Config, pipeline: &Pipeline, in_use: &InUse) -> Result<Self> {
        let Enroll { port, life, .. } = config.enroll;
        let paths = CaPaths::of(config);
        if !paths.has_key() {
            bail!(
                "the CA's key {} is not on this machine; set enroll.enabled = false in tidegate.toml",
                paths.key.display()
            );
        }
        let tokens = Tokens::open(&paths.tokens).context("cannot use the enrolment tokens")?;
        let ledger = Ledger::open(&paths.ledger).context("cannot use the CA's ledger")?;
        let (material, changes) = watch::channel(Arc::new(Material {
            authority: authority(config)?,
            tls: in_use.enrollment_tls()?,
            trusted: in_use.trusted(),
        }));
        let address = SocketAddr::new(config.listen.mqtt_address, port);
        let listener = runtime::listen(address, "enroll.port").await?;
        let registry = pipeline.registry_lookup();
        let devices = move |id: &DeviceId| standing(&registry(), id);
        let (journal, registry) = (pipeline.journal().clone(), pipeline.registry_lookup());
        let on_event = move |event: Event| journal.publish(pipeline::enrollment(&registry(), &event));
        Ok(Self {
            address: listener.local_addr()?,
            materials: Materials {
                material,
                is_behind: false,
            },
            service: Service {
                listener,
                material: changes,
                tokens,
                ledger: Arc::new(ledger),
                devices: Arc::new(devices),
                life,
                limits: Limits::default(),
                clock: Arc::new(clock::now),
                on_event: Arc::new(on_event),
            },
        })
    }
}

/// What the service works with, for whoever changes it.
pub(crate) struct Materials {
    material: watch::Sender<Arc<Material>>,
    is_behind: bool,
}

impl Materials {
    /// Has the service go on with changed certificates, CAs and lists.
    ///
    /// # Errors
    /// When the CA cannot be opened: the service then takes the others, and keeps the CA it has.
    pub(crate) async fn exchange(&mut self, config: &Config, in_use: &InUse) -> Result<()> {
        let tls = in_use.enrollment_tls()?;
        let config = config.clone();
        let opened = tokio::task::spawn_blocking(move || authority(&config)).await?;
        self.is_behind = opened.is_err();
        let (authority, outcome) = match opened {
            Ok(authority) => (authority, Ok(())),
            Err(error) => (Arc::clone(&self.material.borrow().authority), Err(error)),
        };
        self.material.send_replace(Arc::new(Material {
            authority,
            tls,
            trusted: in_use.trusted(),
        }));
        outcome
    }

    /// Whether the CA could not be opened the last time.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }
}

fn authority(config: &Config) -> Result<Arc<Authority>> {
    let mut authorities = Ca::open(config)?.authorities;
    // The first one issues; there is none only where the CA cannot be opened.
    Ok(Arc::new(authorities.swap_remove(0)))
}

fn standing(registry: &Registry, id: &DeviceId) -> Standing {
    match registry.by_id(id).map(|index| registry.device(index).enabled) {
        Some(true) => Standing::Enabled,
        Some(false) => Standing::Disabled,
        None => Standing::Unknown,
    }
}
