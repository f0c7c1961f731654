//! The service: an HTTPS listener, what it is given, and an orderly end.

use crate::event::OnEvent;
use crate::limits::Limits;
use crate::tokens::Tokens;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::authority::Authority;
use tidegate_pki::ledger::Ledger;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Life of the certificates that are given out, where nothing else is asked for.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// How long a certificate can still be renewed after the device was given a newer one. The answer
/// may have been lost on the way, and the device asks again; a thief of the old key must not be
/// able to go on for ever.
pub const SUPERSEDED_GRACE: Duration = Duration::from_secs(86_400);

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Asks the registry about a device.
pub type Devices = Arc<dyn Fn(&DeviceId) -> Standing + Send + Sync>;

/// What the registry says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is registered and may have a certificate.
    Enabled,
    /// It is registered and turned off.
    Disabled,
    /// It is not registered.
    Unknown,
}

/// What changes when the CA or the server's certificate is changed, or something is revoked. All of
/// it is exchanged in one step; connections that were made under the old end.
#[derive(Clone)]
pub struct Material {
    /// Signs what is given out.
    pub authority: Arc<Authority>,
    /// Of the listener: from [`tidegate_pki::tls::load_enrollment_server`], which takes clients
    /// with and without a certificate.
    pub tls: Arc<ServerConfig>,
    /// The CAs that devices shall trust, for `cacerts`: during a change, both.
    pub trusted: Arc<[CertificateDer<'static>]>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("authority", &self.authority)
            .field("trusted", &self.trusted.len())
            .finish_non_exhaustive()
    }
}

/// The service before it runs.
pub struct Service {
    /// Already bound, so that its address is known before anything starts.
    pub listener: TcpListener,
    /// The CA and the server's identity; the sender may exchange them at any time.
    pub material: watch::Receiver<Arc<Material>>,
    /// Who may fetch a first certificate.
    pub tokens: Tokens,
    /// Where every certificate is recorded before it is given out, and what is revoked.
    pub ledger: Arc<Ledger>,
    /// The registry.
    pub devices: Devices,
    /// Life of the certificates that are given out; [`DEFAULT_LIFE`] as a rule.
    pub life: Duration,
    /// Bounds; [`Limits::default`] as a rule.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// What to do about security events.
    pub on_event: OnEvent,
}

impl Service {
    /// Serves until `stop`, then ends every connection, within seconds.
    ///
    /// # Errors
    /// When the listener's own address cannot be read.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let address = self.listener.local_addr()?;
        tracing::info!(%address, "devices can fetch certificates");
        crate::door::accept(self, stop).await;
        Ok(())
    }
}
