//! How a device gets its certificate and exchanges it for the next: EST (RFC 7030) over HTTPS.
//!
//! The device makes its key, which never leaves it, and sends a certificate request: the first time
//! with a token that somebody with access to the gateway made for it, later with the certificate
//! that it has. What comes back is checked before anything on the disk changes.

mod check;
mod error;
mod exchange;
mod files;
mod pin;
mod token;

use self::exchange::{Authorization, Operation};
use self::files::Prepared;
use rustls::ClientConfig;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::inspect::CertificateInfo;
use tidegate_pki::request;
use tidegate_pki::tls::{ClientTls, client_config};
use tokio::task;

pub use self::error::EnrollError;
pub use self::exchange::{EXCHANGE_WITHIN, MAX_RETRY_AFTER};
pub use self::files::IdentityFiles;
pub use self::pin::{Fingerprint, FingerprintError};
pub use self::token::{MAX_TOKEN_BYTES, Token, TokenError};

/// Where certificates are given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address; one that the gateway's certificate carries.
    pub host: String,
    /// The port of its enrolment service.
    pub port: u16,
}

/// The text is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT, such as gateway.example:8443 or [2001:db8::7]:8443")]
pub struct ServerError(String);

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let refused = || ServerError(text.chars().take(80).flat_map(char::escape_default).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) if address.contains(':') => address,
            _ if host.is_empty() || host.contains([':', '/', '[', ']', '@']) => return Err(refused()),
            _ => host,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// By what the device knows the gateway at their first contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A file with the CA's certificate, or with those of several.
    Ca(PathBuf),
    /// The SHA-256 of the CA's certificate. The certificate itself is fetched from the gateway over
    /// a connection on which nobody is authenticated and nothing secret is sent, and is believed
    /// only when it has this fingerprint (RFC 7030 §4.1.1).
    Fingerprint(Fingerprint),
}

/// A first enrolment.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Where.
    pub server: Server,
    /// Whom to believe there.
    pub trust: Trust,
    /// The device; the token must have been made for it.
    pub device: DeviceId,
    /// Good for one certificate.
    pub token: Token,
    /// Where the certificate, its key and the CA are written. Made when it is missing.
    pub folder: PathBuf,
    /// Whether a certificate or key of the device that is there already gives way.
    pub replace: bool,
}

/// A certificate that was fetched and is on the disk.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The certificate.
    pub certificate: CertificateInfo,
    /// The CAs that the device trusts from now on.
    pub authorities: Vec<CertificateInfo>,
    /// Whether these are others than before.
    pub authorities_changed: bool,
    /// Where all of it is.
    pub files: IdentityFiles,
}

/// Fetches a device's first certificate, `now` by its clock.
///
/// The folder is known to be writable before the token is spent. When this fails after that, the
/// token is gone and another one is needed. On success the files are on the disk, whatever happens
/// next; at every moment before, the folder holds what it held.
///
/// # Panics
///
/// Outside a tokio runtime with time and network enabled.
pub async fn enroll(enrollment: &Enrollment, now: Timestamp) -> Result<Enrolled, EnrollError> {
    let files = IdentityFiles::new(&enrollment.folder, &enrollment.device)?;
    if !enrollment.replace
        && let Some(path) = files.existing()
    {
        return Err(EnrollError::Exists { path });
    }
    let tls = match &enrollment.trust {
        Trust::Ca(path) => client_config(&ClientTls {
            ca: path.clone(),
            identity: None,
        })?,
        Trust::Fingerprint(pin) => {
            let offered = exchange::certificates(
                &enrollment.server,
                pin::dangerous_without_authentication(),
                Operation::CaCertificates,
                now,
            )
            .await?;
            pin::trusting(&pin.find(offered.certificates)?)?
        }
    };
    let authorization = Authorization::token(&enrollment.device, &enrollment.token);
    let operation = |request| Operation::Enroll {
        request,
        authorization,
    };
    let keep = !enrollment.replace;
    fetch(&enrollment.server, tls, files, keep, operation, now).await
}

/// Exchanges the certificate in `files` for the next, with a new key, `now` by the device's clock.
/// The old one proves who asks.
///
/// The CAs are fetched over the same authenticated connection: this is how a change of the CA
/// reaches devices. On success the new pair is on the disk; at every moment before, the old one is.
///
/// # Panics
///
/// Outside a tokio runtime with time and network enabled.
pub async fn renew(server: &Server, files: &IdentityFiles, now: Timestamp) -> Result<Enrolled, EnrollError> {
    let tls = files.client_config()?;
    fetch(server, tls, files.clone(), false, Operation::Reenroll, now).await
}

async fn fetch(
    server: &Server,
    tls: Arc<ClientConfig>,
    files: IdentityFiles,
    keep_authorities: bool,
    operation: impl FnOnce(Vec<u8>) -> Operation,
    now: Timestamp,
) -> Result<Enrolled, EnrollError> {
    let trusted = exchange::certificates(server, Arc::clone(&tls), Operation::CaCertificates, now).await?;
    let authorities = check::authorities(trusted)?;
    if keep_authorities && files.trusts_none_of(&authorities) {
        return Err(EnrollError::Exists { path: files.ca() });
    }
    let device = files.device().clone();
    let made = request::make(&device)?;
    let before = files.authorities();
    let key_pem = made.key_pem.clone();
    let prepared = blocking(move || files.prepare(&key_pem)).await?;
    let answer = exchange::certificates(server, tls, operation(made.der.clone()), now).await?;
    let certificate = check::certificate(answer.certificates, &made.der, &device, &authorities, now)?;
    blocking(move || install(prepared, certificate, authorities, before)).await
}

/// The CAs first: they are good for the old certificate as well as for the new one.
fn install(
    prepared: Prepared,
    certificate: CertificateInfo,
    authorities: Vec<CertificateInfo>,
    before: Option<Vec<u8>>,
) -> Result<Enrolled, EnrollError> {
    let authorities_changed = prepared.write_authorities(&authorities, before.as_deref())?;
    let files = prepared.commit(&certificate)?;
    Ok(Enrolled {
        certificate: CertificateInfo {
            path: files.certificate(),
            ..certificate
        },
        authorities,
        authorities_changed,
        files,
    })
}

/// Disks are slow to say that something is safe.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnrollError> + Send + 'static,
) -> Result<T, EnrollError> {
    match task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(EnrollError::Stopped(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_read_as_host_and_port_and_written_the_same_way() {
        for text in [
            "gateway.example:8443",
            "192.0.2.7:1",
            "[2001:db8::7]:8443",
            "localhost:65535",
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]:9".parse::<Server>().unwrap().host, "::1");
    }

    #[test]
    fn server_without_port_or_with_more_than_a_name_is_refused() {
        for text in [
            "gateway.example",
            "gateway.example:",
            "gateway.example:0",
            "gateway.example:65536",
            ":8443",
            "::1:8443",
            "[::1]",
            "[gateway]:1",
            "https://gateway.example:8443",
            "a@b:1",
            "",
        ] {
            let refused = text.parse::<Server>().unwrap_err().to_string();
            assert!(refused.contains("HOST:PORT"), "{text:?}: {refused}");
        }
    }
}
