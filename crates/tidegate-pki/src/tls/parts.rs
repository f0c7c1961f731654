//! The parts of a server's configuration, read one by one: a broken server certificate must not keep
//! a new revocation list from being taken.

use super::{ClientAuth, TlsError, check_validity, mismatch, now, provider, refusal, sessions, trust};
use crate::crl::{self, Accepted, RevocationList};
use crate::files;
use crate::inspect::CertificateInfo;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Whether a client needs a certificate where it is asked for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Without one it is not let in.
    Required,
    /// It may come without. One that is shown must be as good as elsewhere.
    Optional,
}

/// A server's certificate and key, which belong together.
#[derive(Clone)]
pub struct ServerIdentity {
    certificate: CertificateInfo,
    key: Arc<CertifiedKey>,
}

impl ServerIdentity {
    /// Reads both. An expired certificate is refused: no client would take it.
    ///
    /// # Errors
    /// When one cannot be read, is not in its validity, or does not belong to the other.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let info = check_validity(certificate, now())?;
        let chain = files::read_certificates(certificate)?;
        let loaded = CertifiedKey::from_der(chain, files::read_key(key)?, &provider());
        Ok(Self {
            certificate: info,
            key: Arc::new(loaded.map_err(|source| mismatch(certificate, key, source))?),
        })
    }

    /// The certificate itself.
    #[must_use]
    pub fn certificate(&self) -> &CertificateInfo {
        &self.certificate
    }

    /// The certificate and those between it and its CA, as clients get them.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The CAs whose clients are let in, and what they have revoked. Clones share the lists.
#[derive(Debug, Clone)]
pub struct ClientTrust {
    authorities: Arc<[CertificateInfo]>,
    roots: Arc<RootCertStore>,
    /// As many as there are CAs; empty where no file was given.
    lists: Arc<[RevocationList]>,
    required: Arc<dyn ClientCertVerifier>,
}

impl ClientTrust {
    /// Reads CAs and lists. `accepted` changes only when all of it was taken.
    ///
    /// # Errors
    /// When a CA or a list cannot be used, or a list went back behind the last one in use.
    pub fn load(auth: &ClientAuth, accepted: &mut Accepted) -> Result<Self, TlsError> {
        let (authorities, roots) = trust(&auth.ca)?;
        Self::of(authorities.into(), Arc::new(roots), auth.crl.as_deref(), accepted)
    }

    /// The same CAs, with the lists that a file has now.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn with_lists(&self, lists: &Path, accepted: &mut Accepted) -> Result<Self, TlsError> {
        let (authorities, roots) = (Arc::clone(&self.authorities), Arc::clone(&self.roots));
        Self::of(authorities, roots, Some(lists), accepted)
    }

    /// The CAs, in the order of their file.
    #[must_use]
    pub fn authorities(&self) -> &[CertificateInfo] {
        &self.authorities
    }

    /// Their revocation lists, in the same order; none where no file was given.
    #[must_use]
    pub fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// Whether one of the lists revokes the certificate with this serial number (big-endian without
    /// leading zeros).
    #[must_use]
    pub fn revokes(&self, serial: &[u8]) -> bool {
        self.lists.iter().any(|list| list.revokes(serial))
    }

    fn of(
        authorities: Arc<[CertificateInfo]>,
        roots: Arc<RootCertStore>,
        path: Option<&Path>,
        accepted: &mut Accepted,
    ) -> Result<Self, TlsError> {
        let lists = match path {
            Some(path) => crl::read(path, &authorities, now())?,
            None => Vec::new(),
        };
        let required = verifier(&roots, &lists, Asked::Required)?;
        accepted.take(&lists)?;
        Ok(Self {
            authorities,
            roots,
            lists: lists.into(),
            required,
        })
    }
}

/// Makes a configuration of parts: with a fresh session store and no ticketer, so that a client
/// resumes only sessions of the configuration that verified it. Without `trust`, clients are not
/// asked for a certificate.
///
/// # Errors
/// When rustls refuses what it took before.
pub fn assemble(
    identity: &ServerIdentity,
    trust: Option<&ClientTrust>,
    asked: Asked,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match (trust, asked) {
        (None, _) => builder.with_no_client_auth(),
        (Some(trust), Asked::Required) => builder.with_client_cert_verifier(Arc::clone(&trust.required)),
        (Some(trust), Asked::Optional) => {
            builder.with_client_cert_verifier(verifier(&trust.roots, &trust.lists, asked)?)
        }
    };
    let key = SingleCertAndKey::from(CertifiedKey::clone(&identity.key));
    let mut config = builder.with_cert_resolver(Arc::new(key));
    let lists = trust.into_iter().flat_map(ClientTrust::lists);
    config.session_storage = sessions::store(lists.map(|list| list.next_update).min(), now);
    Ok(Arc::new(config))
}

fn verifier(
    roots: &Arc<RootCertStore>,
    lists: &[RevocationList],
    asked: Asked,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::new(provider()));
    if !lists.is_empty() {
        let ders = lists.iter().map(|list| list.der.clone());
        // rustls accepts an expired list unless told not to.
        builder = builder.with_crls(ders).enforce_revocation_expiration();
    }
    if asked == Asked::Optional {
        builder = builder.allow_unauthenticated();
    }
    Ok(refusal::explaining(builder.build()?))
}
