//! Revocation lists: read, and refused unless our CA signed them and they are in force.

use crate::files::{self, FileError};
use crate::identity::timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::path::{Path, PathBuf};
use tidegate_envelope::time::Timestamp;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Most lists in one file.
pub const MAX_LISTS: usize = 16;

/// A revocation list that our CA signed and that was in force when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The list itself.
    pub der: CertificateRevocationListDer<'static>,
    /// Its crlNumber (RFC 5280 §5.2.3), big-endian: a later list has a higher one.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: Timestamp,
    /// When the next one is due; after it, every client is refused.
    pub next_update: Timestamp,
    /// The revoked serial numbers, big-endian without leading zeros, sorted.
    pub serials: Vec<Vec<u8>>,
}

impl RevocationList {
    /// Whether it revokes the certificate with this serial number.
    #[must_use]
    pub fn revokes(&self, serial: &[u8]) -> bool {
        self.serials
            .binary_search_by(|revoked| revoked.as_slice().cmp(serial))
            .is_ok()
    }
}

/// A revocation list was refused. Taking it would let revoked clients in, or lock all clients out.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is empty, or holds something else: taken as "nothing is revoked", it would let all in.
    #[error("{} holds no revocation list", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged.
    #[error("a revocation list in {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Another key signed it.
    #[error("the CA did not sign the revocation list in {}", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
    },
    /// It has no number or no end, so it can neither be ordered nor expire.
    #[error("the revocation list in {} lacks its number or nextUpdate", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// It is past its end, or from the future.
    #[error("the revocation list in {} is in force only from {from} to {to}", path.display())]
    NotInForce {
        /// The file.
        path: PathBuf,
        /// Its start.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
}

/// Reads the newest list that `authority` signed from a PEM file.
///
/// Every list in the file must be valid: one that is not says that something is wrong.
pub fn read(path: &Path, authority: &CertificateDer<'_>, now: Timestamp) -> Result<RevocationList, CrlError> {
    let text = files::read(path)?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&text)
        .take(MAX_LISTS + 1)
        .collect::<Result<_, _>>()
        .map_err(|source| FileError::Pem {
            path: path.into(),
            source,
        })?;
    if lists.len() > MAX_LISTS {
        return Err(CrlError::Damaged { path: path.into() });
    }
    let mut newest: Option<RevocationList> = None;
    for list in lists {
        let list = check(list, path, authority, now)?;
        let later =
            |old: &RevocationList| (old.number.len(), &old.number) < (list.number.len(), &list.number);
        if newest.as_ref().is_none_or(later) {
            newest = Some(list);
        }
    }
    newest.ok_or_else(|| CrlError::Empty { path: path.into() })
}

fn check(
    der: CertificateRevocationListDer<'static>,
    path: &Path,
    authority: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<RevocationList, CrlError> {
    let (rest, list) =
        CertificateRevocationList::from_der(&der).map_err(|_| CrlError::Damaged { path: path.into() })?;
    let unsigned = || CrlError::Signature { path: path.into() };
    let (_, authority) = X509Certificate::from_der(authority).map_err(|_| unsigned())?;
    if !rest.is_empty() {
        return Err(CrlError::Damaged { path: path.into() });
    }
    if list.issuer().as_raw() != authority.subject().as_raw() {
        return Err(unsigned());
    }
    list.verify_signature(authority.public_key())
        .map_err(|_| unsigned())?;
    let (Some(number), Some(next_update)) = (list.crl_number(), list.next_update()) else {
        return Err(CrlError::Incomplete { path: path.into() });
    };
    let (this_update, next_update) = (timestamp(list.last_update()), timestamp(next_update));
    if now < this_update || now > next_update {
        return Err(CrlError::NotInForce {
            path: path.into(),
            from: this_update,
            to: next_update,
        });
    }
    let mut serials: Vec<_> = list
        .iter_revoked_certificates()
        .map(|entry| entry.serial().to_bytes_be())
        .collect();
    serials.sort_unstable();
    let number = number.to_bytes_be();
    Ok(RevocationList {
        number,
        this_update,
        next_update,
        serials,
        der: der.clone(),
    })
}
