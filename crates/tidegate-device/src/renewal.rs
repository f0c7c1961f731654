//! Exchanges a device's certificate in time, in the publisher's own process.
//!
//! [`Renewal`] looks at the certificate, fetches the next one at two thirds of its life, and hands
//! the new TLS configuration to the publisher
//! ([`PublisherConfig::tls_changes`](crate::publisher::PublisherConfig::tls_changes)), which
//! connects anew with it. A certificate or CA that another program puts in place is noticed and
//! used as well.

mod schedule;

use self::schedule::Schedule;
use crate::chain::chain;
use crate::enrollment::{self, EnrollError, IdentityFiles, Server, blocking};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::ClientConfig;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::CertificateInfo;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};
use tracing::debug;

pub use self::schedule::{FIRST_RETRY, LONGEST_RETRY};

/// Events that wait for the caller; further ones are lost.
pub const EVENT_CAPACITY: usize = 64;
/// How often the clock and the files are looked at: a machine that slept, a clock that was set and
/// a certificate that was replaced are noticed within this.
pub const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a renewal is told at its start.
#[derive(Clone)]
pub struct RenewalConfig {
    /// Where certificates are given out.
    pub server: Server,
    /// The device's certificate, key and CA; all of them must be there.
    pub files: IdentityFiles,
    /// The device's clock.
    pub clock: Clock,
    /// What the random part of the times starts from, for tests; `None` asks the operating system,
    /// and keeps devices apart.
    pub jitter_seed: Option<u64>,
}

impl RenewalConfig {
    /// A renewal with a random part of its own.
    #[must_use]
    pub const fn new(server: Server, files: IdentityFiles, clock: Clock) -> Self {
        Self {
            server,
            files,
            clock,
            jitter_seed: None,
        }
    }
}

impl fmt::Debug for RenewalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewalConfig")
            .field("server", &self.server)
            .field("files", &self.files)
            .field("jitter_seed", &self.jitter_seed)
            .finish_non_exhaustive()
    }
}

/// Something that happened to the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new certificate is in place and in use from the next connection on.
    Renewed {
        /// The end of its validity.
        not_after: Timestamp,
        /// When it will be renewed.
        next: Timestamp,
        /// Whether the device trusts other CAs now.
        authorities_changed: bool,
    },
    /// Another program has put a certificate or a CA in place; it is used as a renewed one is.
    Replaced {
        /// The end of the certificate's validity.
        not_after: Timestamp,
        /// When it will be renewed.
        next: Timestamp,
    },
    /// No new certificate, or none that can be used. The old one goes on.
    RenewalFailed {
        /// Why, and what to do about it.
        detail: String,
        /// When the next attempt comes, at the latest.
        retry_in: Duration,
        /// Until when the old one goes on.
        not_after: Timestamp,
    },
}

/// The renewal of one device. Ends when it is dropped.
#[derive(Debug)]
pub struct Renewal {
    tls: watch::Receiver<Arc<ClientConfig>>,
    task: JoinHandle<()>,
}

impl Renewal {
    /// Starts in a task of its own, and gives the events of which [`EVENT_CAPACITY`] wait.
    ///
    /// # Errors
    ///
    /// When certificate, key or CA cannot be used: the device has to enrol first. One that has
    /// expired is no error here, since the clock may be at fault.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time and network enabled.
    pub fn start(config: RenewalConfig) -> Result<(Self, mpsc::Receiver<Event>), EnrollError> {
        let identity = Identity::load(&config.files)?;
        let (sender, tls) = watch::channel(Arc::clone(&identity.tls));
        let (events, received) = mpsc::channel(EVENT_CAPACITY);
        let random = config
            .jitter_seed
            .map_or_else(rand::make_rng, StdRng::seed_from_u64);
        let task = Task {
            schedule: Schedule::new(&identity.certificate, random),
            identity,
            tls: sender,
            events,
            config,
        };
        let task = tokio::spawn(task.run());
        Ok((Self { tls, task }, received))
    }

    /// The TLS configuration, and every later one.
    #[must_use]
    pub fn tls(&self) -> watch::Receiver<Arc<ClientConfig>> {
        self.tls.clone()
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is in use.
#[derive(Clone)]
struct Identity {
    certificate: CertificateInfo,
    /// `ca.pem` as it was read.
    authorities: Option<Vec<u8>>,
    tls: Arc<ClientConfig>,
}

impl Identity {
    fn load(files: &IdentityFiles) -> Result<Self, EnrollError> {
        // Read first: a change in between is found the next time.
        let (authorities, certificate) = (files.authorities(), files.inspect()?);
        Ok(Self {
            certificate,
            authorities,
            tls: files.client_config()?,
        })
    }

    /// What is on the disk now, where that is another.
    fn other(&self, files: &IdentityFiles) -> Result<Option<Self>, EnrollError> {
        let same = files.inspect()?.der == self.certificate.der && files.authorities() == self.authorities;
        if same {
            Ok(None)
        } else {
            Self::load(files).map(Some)
        }
    }
}

struct Task {
    config: RenewalConfig,
    identity: Identity,
    schedule: Schedule,
    tls: watch::Sender<Arc<ClientConfig>>,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(mut self) {
        loop {
            match self.adopt().await {
                Ok(false) => {}
                Ok(true) => self.emit(Event::Replaced {
                    not_after: self.identity.certificate.not_after,
                    next: self.schedule.due(),
                }),
                // Half of it may be there yet; what is in use goes on, and is renewed.
                Err(error) => debug!(detail = chain(&error), "the files cannot be used now"),
            }
            if self.schedule.is_due((self.config.clock)(), Instant::now()) {
                self.renew().await;
            }
            let wait = self.schedule.wait((self.config.clock)(), Instant::now());
            time::sleep(wait.min(CHECK_EVERY)).await;
        }
    }

    async fn renew(&mut self) {
        let now = (self.config.clock)();
        let renewed = enrollment::renew(&self.config.server, &self.config.files, now).await;
        let outcome = match renewed {
            Ok(enrolled) => self.adopt().await.map(|_| enrolled.authorities_changed),
            Err(error) => Err(error),
        };
        let not_after = self.identity.certificate.not_after;
        match outcome {
            Ok(authorities_changed) => {
                self.schedule.renewed(Instant::now());
                self.emit(Event::Renewed {
                    not_after,
                    next: self.schedule.due(),
                    authorities_changed,
                });
            }
            Err(error) => {
                let now = (self.config.clock)();
                let retry_in = self.schedule.failed(error.retry_after(), now, Instant::now());
                self.emit(Event::RenewalFailed {
                    detail: chain(&error),
                    retry_in,
                    not_after,
                });
            }
        }
    }

    /// Uses what is on the disk, where that is another than what is in use; says whether it is.
    async fn adopt(&mut self) -> Result<bool, EnrollError> {
        let (files, present) = (self.config.files.clone(), self.identity.clone());
        let Some(other) = blocking(move || present.other(&files)).await? else {
            return Ok(false);
        };
        if other.certificate.der != self.identity.certificate.der {
            self.schedule.restart(&other.certificate);
        }
        self.identity = other;
        self.tls.send_replace(Arc::clone(&self.identity.tls));
        Ok(true)
    }

    fn emit(&self, event: Event) {
        debug!(device = %self.config.files.device(), ?event, "renewal");
        // A caller that does not listen must not stop the renewal.
        let _ = self.events.try_send(event);
    }
}
