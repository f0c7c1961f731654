//! TLS configurations of servers and clients, and the names of failed handshakes.
//!
//! TLS 1.3 and 1.2. The key exchange X25519MLKEM768 is preferred: what is recorded today stays
//! closed to the quantum computers of tomorrow. A peer without it falls back to X25519.

mod parts;
mod refusal;
mod sessions;

pub use parts::{Asked, ClientTrust, ServerIdentity, assemble};

use crate::crl::{Accepted, CrlError, RevocationList};
use crate::files::{self, FileError};
use crate::inspect::{self, CertificateInfo, InspectError};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::server::VerifierBuilderError;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::UnixTime;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;

/// Sessions that a server remembers for resumption; older ones make a full handshake.
pub const SESSION_CACHE: usize = 4_096;
/// Servers that a client remembers sessions of.
const CLIENT_SESSION_CACHE: usize = 32;

/// What a TLS server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Its certificate.
    pub certificate: PathBuf,
    /// The private key, readable by its owner only.
    pub key: PathBuf,
    /// Whether clients must prove themselves; `None` lets anyone in.
    pub client_auth: Option<ClientAuth>,
}

/// How clients prove themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// The CA that must have signed their certificates, or a bundle of several while it is changed.
    pub ca: PathBuf,
    /// The revocation lists of all of them. An empty, foreign or expired one is an error, never "nothing revoked".
    pub crl: Option<PathBuf>,
}

/// What a TLS client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The CA, or bundle of several, that must have signed the server's certificate. The system's own CAs are not trusted.
    pub ca: PathBuf,
    /// Its certificate and key, where the server asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate could not be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The revocation list was refused.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// The certificate has expired.
    #[error("the certificate {} expired at {not_after}: run `tidegate certs issue {name} --force`", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        not_after: Timestamp,
        /// The name to issue again: the file's name.
        name: String,
    },
    /// The certificate is from the future, so this machine's clock is probably wrong.
    #[error("the certificate {} is valid only from {not_before}: check this machine's clock, which says {now}", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it becomes valid.
        not_before: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// The certificate file given as CA is none.
    #[error("{} is not the certificate of a CA", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The key belongs to another certificate, or is of a kind that is not supported.
    #[error("the key {} does not fit the certificate {}", key.display(), certificate.display())]
    Identity {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The client verifier could not be made.
    #[error("clients cannot be verified")]
    Verifier(#[from] VerifierBuilderError),
    /// The provider and the protocol versions do not fit each other.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// A server's configuration, and what it was made of.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// For [`rustls`].
    pub config: Arc<ServerConfig>,
    /// The server's own certificate.
    pub certificate: CertificateInfo,
    /// The CAs whose clients are let in; none where clients are not asked.
    pub authorities: Vec<CertificateInfo>,
    /// Their revocation lists, in the same order; none where no file was given.
    pub lists: Vec<RevocationList>,
}

/// The configuration of a TLS server.
///
/// Each call makes a fresh session store and no ticketer: a client resumes only sessions of the
/// configuration that verified it, so a reload (after a revocation) makes everyone prove
/// themselves anew. An expired server certificate is refused: no client would take it.
pub fn server_config(tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    load_server(tls, &mut Accepted::new()).map(|loaded| loaded.config)
}

/// As [`server_config`], for a server that reloads: each file is read once, and a revocation list
/// whose number is below that of the last one in use is refused. `accepted` changes only when all
/// of it was taken.
pub fn load_server(tls: &ServerTls, accepted: &mut Accepted) -> Result<Loaded, TlsError> {
    load(tls, accepted, Asked::Required)
}

/// As [`load_server`], but clients may come without a certificate too: a device that fetches its
/// first one has none. A certificate that is shown must be as good as elsewhere.
pub fn load_enrollment_server(tls: &ServerTls, accepted: &mut Accepted) -> Result<Loaded, TlsError> {
    load(tls, accepted, Asked::Optional)
}

fn load(tls: &ServerTls, accepted: &mut Accepted, asked: Asked) -> Result<Loaded, TlsError> {
    let identity = ServerIdentity::load(&tls.certificate, &tls.key)?;
    let trust = tls.client_auth.as_ref();
    let trust = trust.map(|auth| ClientTrust::load(auth, accepted)).transpose()?;
    Ok(Loaded {
        config: assemble(&identity, trust.as_ref(), asked)?,
        certificate: identity.certificate().clone(),
        authorities: trust
            .as_ref()
            .map_or_else(Vec::new, |trust| trust.authorities().to_vec()),
        lists: trust.map_or_else(Vec::new, |trust| trust.lists().to_vec()),
    })
}

/// The configuration of a TLS client that trusts our CA alone.
///
/// An expired identity is not refused here: the server decides, and shows that it does. Callers
/// that want the fix in words ask [`check_validity`] first.
pub fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let (_, roots) = trust(&tls.ca)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(files::read_certificates(certificate)?, files::read_key(key)?)
            .map_err(|source| mismatch(certificate, key, source))?,
    };
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSION_CACHE);
    Ok(Arc::new(config))
}

/// Reads a certificate file, refuses it outside its validity, and names the fix.
pub fn check_validity(certificate: &Path, now: Timestamp) -> Result<CertificateInfo, TlsError> {
    let info = inspect::certificate(certificate)?;
    if now > info.not_after {
        let name = certificate
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        return Err(TlsError::Expired {
            path: info.path,
            not_after: info.not_after,
            name,
        });
    }
    if now < info.not_before {
        return Err(TlsError::NotYetValid {
            path: info.path,
            not_before: info.not_before,
            now,
        });
    }
    Ok(info)
}

/// Why a handshake failed, as a server sees it. Takes a [`rustls::Error`], or an error that has
/// one inside, as the [`std::io::Error`] of a TLS stream does.
#[must_use]
pub fn classify(error: &(dyn Error + 'static)) -> Reason {
    match tls_error(error) {
        Some(rustls::Error::NoCertificatesPresented) => Reason::TlsNoCertificate,
        Some(rustls::Error::InvalidCertificate(error)) => of_certificate(error),
        Some(rustls::Error::AlertReceived(alert)) if rejects_certificate(*alert) => Reason::TlsServerRejected,
        _ => Reason::TlsHandshake,
    }
}

/// Why a handshake failed, as a server sees it, in a sentence for people that says more than
/// [`classify`]'s name.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    tls_error(error).map_or_else(|| error.to_string(), refusal::sentence)
}

/// Why a handshake failed, as a client sees it: whether it refused the server, or the server its
/// certificate. `None` when nothing in the chain of errors is about TLS.
#[must_use]
pub fn classify_as_client(error: &(dyn Error + 'static)) -> Option<Reason> {
    Some(match tls_error(error)? {
        rustls::Error::InvalidCertificate(_) => Reason::TlsServerRejected,
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                Reason::TlsNoCertificate
            }
            AlertDescription::CertificateExpired => Reason::TlsExpired,
            AlertDescription::CertificateRevoked => Reason::TlsRevoked,
            alert if rejects_certificate(*alert) => Reason::TlsBadCertificate,
            _ => Reason::TlsHandshake,
        },
        _ => Reason::TlsHandshake,
    })
}

fn of_certificate(error: &CertificateError) -> Reason {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Reason::TlsExpired,
        CertificateError::Revoked => Reason::TlsRevoked,
        // The list is at fault here, not the client.
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => Reason::TlsHandshake,
        _ => Reason::TlsBadCertificate,
    }
}

/// Alerts by which a peer says that it does not take the certificate it was shown (RFC 8446 §6.2).
fn rejects_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

/// The first rustls error in a chain. An [`std::io::Error`] skips the error that it wraps when it
/// is asked for its source, so it is opened by hand.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn provider() -> CryptoProvider {
    let kx_groups = vec![
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
        kx_group::SECP384R1,
    ];
    CryptoProvider {
        kx_groups,
        ..aws_lc_rs::default_provider()
    }
}

fn trust(path: &Path) -> Result<(Vec<CertificateInfo>, RootCertStore), TlsError> {
    let bundle = inspect::bundle(path).map_err(|error| match error {
        InspectError::NotAuthority { path } => TlsError::NotAuthority { path },
        error => error.into(),
    })?;
    let mut roots = RootCertStore::empty();
    for info in &bundle {
        let refused = |_| TlsError::NotAuthority { path: path.into() };
        roots.add(info.der.clone()).map_err(refused)?;
    }
    Ok((bundle, roots))
}

fn mismatch(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    TlsError::Identity {
        certificate: certificate.into(),
        key: key.into(),
        source,
    }
}

/// The system's clock, by which rustls too judges certificates.
fn now() -> Timestamp {
    let seconds = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}
