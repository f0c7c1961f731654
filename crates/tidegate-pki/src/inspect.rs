//! What stands in a certificate file, for people and for checks before a start.

use crate::files::{self, FileError};
use crate::identity;
use rcgen::{CertificateParams, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// Most certificates that [`list`] reads.
pub const MAX_LISTED: usize = 100_000;

const MICROS_PER_DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// The file could not be read as a certificate.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be read, or holds something else.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its PEM holds bytes that are no X.509 certificate.
    #[error("{} holds no X.509 certificate", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// It should hold the certificates of CAs, and holds another.
    #[error("{} is not the certificate of a CA", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// It signs certificates.
    Authority,
    /// It proves a server.
    Server,
    /// It proves a client.
    Client,
    /// None of these, or several.
    Other,
}

/// The first certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The file.
    pub path: PathBuf,
    /// The subject's CN, empty where there is none.
    pub subject: String,
    /// The issuer as a distinguished name.
    pub issuer: String,
    /// The id in its SAN URI, for a client.
    pub identity: Option<DeviceId>,
    /// The role in the same URI.
    pub role: Option<Role>,
    /// What it may be used for.
    pub usage: Usage,
    /// The serial number in lower-case hex, without leading zeros.
    pub serial: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Its names: `DNS:localhost`, `IP:127.0.0.1`, `URI:urn:tidegate:device:device-001`.
    pub sans: Vec<String>,
    /// Its SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// Its subject key identifier (RFC 5280 §4.2.1.2), or what ours would be where it has none.
    pub key_id: Vec<u8>,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
}

impl CertificateInfo {
    /// Whole days until it expires, rounded down; negative once it has expired.
    #[must_use]
    pub const fn days_left(&self, now: Timestamp) -> i64 {
        self.not_after
            .as_micros()
            .saturating_sub(now.as_micros())
            .div_euclid(MICROS_PER_DAY)
    }

    /// Whether it is within its validity, both ends included (RFC 5280 §4.1.2.5).
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Reads the first certificate of a PEM file.
pub fn certificate(path: &Path) -> Result<CertificateInfo, InspectError> {
    describe(files::read_certificates(path)?.swap_remove(0), path)
}

/// Reads the certificates of the CAs in a PEM file: one, or two while the CA is being changed.
/// A file that holds any other certificate is refused.
pub fn bundle(path: &Path) -> Result<Vec<CertificateInfo>, InspectError> {
    let describe = |der| {
        let info = describe(der, path)?;
        match info.usage {
            Usage::Authority => Ok(info),
            _ => Err(InspectError::NotAuthority { path: path.into() }),
        }
    };
    files::read_certificates(path)?
        .into_iter()
        .map(describe)
        .collect()
}

/// Reads one certificate that came from elsewhere than a file; `origin` names it in errors.
pub fn describe(der: CertificateDer<'static>, origin: &Path) -> Result<CertificateInfo, InspectError> {
    let refused = || InspectError::Certificate { path: origin.into() };
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| refused())?;
    let client = identity::of_parsed(&parsed).ok();
    let names = parsed.subject_alternative_name().map_err(|_| refused())?;
    let sans = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .map(san)
        .collect();
    let subject = parsed
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    Ok(CertificateInfo {
        path: origin.into(),
        subject: subject.unwrap_or_default().to_owned(),
        issuer: parsed.issuer().to_string(),
        role: client.as_ref().map(|(role, _)| *role),
        identity: client.map(|(_, id)| id),
        usage: usage(&parsed),
        serial: hex::encode(identity::serial(&parsed)),
        not_before: identity::timestamp(parsed.validity().not_before),
        not_after: identity::timestamp(parsed.validity().not_after),
        sans,
        public_key: parsed.public_key().raw.to_vec(),
        key_id: key_id(&parsed),
        der: der.clone(),
    })
}

/// Reads the first certificate of a PEM text; `origin` names it in errors.
pub fn from_pem(text: &str, origin: &Path) -> Result<CertificateInfo, InspectError> {
    let der = CertificateDer::from_pem_slice(text.as_bytes());
    describe(
        der.map_err(|_| InspectError::Certificate { path: origin.into() })?,
        origin,
    )
}

/// The CA among `authorities` that signed `certificate`, by its signature; names prove nothing.
#[must_use]
pub fn issuer_of<'a>(
    certificate: &CertificateDer<'_>,
    authorities: &'a [CertificateInfo],
) -> Option<&'a CertificateInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    authorities.iter().find(|authority| {
        X509Certificate::from_der(&authority.der)
            .is_ok_and(|(_, authority)| parsed.verify_signature(Some(authority.public_key())).is_ok())
    })
}

/// A certificate in PEM (RFC 7468 §5).
#[must_use]
pub fn pem(der: &CertificateDer<'_>) -> String {
    files::pem("CERTIFICATE", der)
}

/// The certificates in a folder by file name: every `*.pem` that is no private key and no
/// revocation list. A file that cannot be read is in the list with its error.
pub fn list(folder: &Path) -> Result<Vec<Result<CertificateInfo, InspectError>>, FileError> {
    let failed = |source| FileError::Read {
        path: folder.into(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let certificate = name.ends_with(".pem") && !name.ends_with("-key.pem") && !name.ends_with("crl.pem");
        if certificate && paths.len() < MAX_LISTED {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths.iter().map(|path| certificate(path)).collect())
}

fn key_id(parsed: &X509Certificate<'_>) -> Vec<u8> {
    let written = parsed
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    written.unwrap_or_else(|| {
        SubjectPublicKeyInfo::from_der(parsed.public_key().raw)
            .map(|key| CertificateParams::default().key_identifier(&key))
            .unwrap_or_default()
    })
}

fn usage(parsed: &X509Certificate<'_>) -> Usage {
    if parsed.is_ca() {
        return Usage::Authority;
    }
    match parsed.extended_key_usage() {
        Ok(Some(purposes)) => match (purposes.value.server_auth, purposes.value.client_auth) {
            (true, false) => Usage::Server,
            (false, true) => Usage::Client,
            _ => Usage::Other,
        },
        _ => Usage::Other,
    }
}

fn san(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6())
                .map_or_else(|_| format!("IP:{}", hex::encode(bytes)), |ip| format!("IP:{ip}"))
        }
        other => other.to_string(),
    }
}
