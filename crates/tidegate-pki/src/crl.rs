//! Revocation lists: read, and refused unless our CAs signed them and they are in force.

mod accepted;

pub use accepted::Accepted;

use crate::authority::{RevocationReason, Revoked};
use crate::files::{self, FileError};
use crate::identity::timestamp;
use crate::inspect::CertificateInfo;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use tidegate_envelope::time::Timestamp;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, ParsedExtension, ReasonCode, X509Certificate,
};

/// Most lists in one file.
pub const MAX_LISTS: usize = 16;

/// A revocation list that our CA signed and that was in force when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The CA that signed it: its key id in lower-case hex.
    pub authority: String,
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

    /// Numbers without leading zeros, in the order of numbers.
    fn order(&self) -> (usize, &[u8]) {
        (self.number.len(), &self.number)
    }
}

/// A revocation list was refused. Taking it would let revoked clients in, or lock all clients out.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is none.
    #[error(
        "there is no revocation list {}: run `tidegate certs refresh-crl` where the CA's key is, and copy the file \
         here",
        path.display()
    )]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
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
    /// A CA is trusted, and nothing says which of its certificates are revoked.
    #[error("{} holds no revocation list of the CA `{authority}`, which is trusted", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The CA's common name.
        authority: String,
    },
    /// Two CAs of one name: which list belongs to which certificate could not be told.
    #[error("two CAs are named `{name}`: their revocation lists cannot be told apart")]
    Namesakes {
        /// Their common name.
        name: String,
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
    /// It is older than one that was in use: taking it would let in who was revoked in between.
    #[error(
        "the revocation list has crlNumber {number} (hex), and one with {accepted} was in use already: \
         sign a new one with `tidegate certs refresh-crl`"
    )]
    WentBack {
        /// Its number in hex.
        number: String,
        /// The number that was in use, in hex.
        accepted: String,
    },
    /// Two different lists have one number, so one of them is not the CA's last word.
    #[error(
        "the revocation list differs from the one in use, and both have crlNumber {number} (hex): \
         sign a new one with `tidegate certs refresh-crl`"
    )]
    SameNumber {
        /// The number in hex.
        number: String,
    },
}

/// Reads a PEM file of revocation lists: for each of `authorities`, in their order, the newest list
/// that it signed.
///
/// Each of them must have one in force. A list that is damaged, or has the name of one of
/// `authorities` and not its signature, spoils the file: something is wrong. A list of a CA that is
/// not among them is passed over, so that a CA can come and go with its list in either order.
pub fn read(
    path: &Path,
    authorities: &[CertificateInfo],
    now: Timestamp,
) -> Result<Vec<RevocationList>, CrlError> {
    refuse_namesakes(authorities)?;
    let mut newest: Vec<Option<RevocationList>> = vec![None; authorities.len()];
    let mut stranger = false;
    for der in lists(path)? {
        match parse(der, path, authorities)? {
            None => stranger = true,
            Some((position, list)) => {
                if now < list.this_update || now > list.next_update {
                    return Err(CrlError::NotInForce {
                        path: path.into(),
                        from: list.this_update,
                        to: list.next_update,
                    });
                }
                let known = &mut newest[position];
                if known.as_ref().is_none_or(|known| known.order() < list.order()) {
                    *known = Some(list);
                }
            }
        }
    }
    if newest.iter().all(Option::is_none) {
        return Err(if stranger {
            CrlError::Signature { path: path.into() }
        } else {
            CrlError::Empty { path: path.into() }
        });
    }
    let missing = |authority: &CertificateInfo| CrlError::Missing {
        path: path.into(),
        authority: authority.subject.clone(),
    };
    newest
        .into_iter()
        .zip(authorities)
        .map(|(list, authority)| list.ok_or_else(|| missing(authority)))
        .collect()
}

/// Every list in a file that one of `authorities` signed, in force or not, and what each revokes.
/// For whoever signs the next ones: what was revoked once must stay so.
pub(crate) fn history(
    path: &Path,
    authorities: &[CertificateInfo],
) -> Result<Vec<(RevocationList, Vec<Revoked>)>, CrlError> {
    let mut history = Vec::new();
    for der in lists(path)? {
        if let Some((_, list)) = parse(der, path, authorities)? {
            let revoked = revoked(&list.der).ok_or_else(|| CrlError::Damaged { path: path.into() })?;
            history.push((list, revoked));
        }
    }
    Ok(history)
}

fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CrlError> {
    let text = files::read(path).map_err(|error| match error {
        FileError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
            CrlError::Absent { path }
        }
        error => error.into(),
    })?;
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
    Ok(lists)
}

fn refuse_namesakes(authorities: &[CertificateInfo]) -> Result<(), CrlError> {
    let subject = |info: &CertificateInfo| {
        X509Certificate::from_der(&info.der).map(|(_, parsed)| parsed.subject().as_raw().to_vec())
    };
    for (position, authority) in authorities.iter().enumerate() {
        let name = subject(authority).ok();
        if authorities[..position]
            .iter()
            .any(|other| subject(other).ok() == name)
        {
            return Err(CrlError::Namesakes {
                name: authority.subject.clone(),
            });
        }
    }
    Ok(())
}

/// A list and the position of the CA that signed it; `None` when its issuer is none of them.
fn parse(
    der: CertificateRevocationListDer<'static>,
    path: &Path,
    authorities: &[CertificateInfo],
) -> Result<Option<(usize, RevocationList)>, CrlError> {
    let damaged = || CrlError::Damaged { path: path.into() };
    let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| damaged())?;
    if !rest.is_empty() {
        return Err(damaged());
    }
    let mut named = None;
    for (position, authority) in authorities.iter().enumerate() {
        let (_, parsed) = X509Certificate::from_der(&authority.der).map_err(|_| damaged())?;
        if parsed.subject().as_raw() == list.issuer().as_raw() {
            list.verify_signature(parsed.public_key())
                .map_err(|_| CrlError::Signature { path: path.into() })?;
            named = Some((position, hex::encode(&authority.key_id)));
        }
    }
    let Some((position, authority)) = named else {
        return Ok(None);
    };
    let (Some(number), Some(next_update)) = (list.crl_number(), list.next_update()) else {
        return Err(CrlError::Incomplete { path: path.into() });
    };
    let mut serials: Vec<_> = list
        .iter_revoked_certificates()
        .map(|entry| entry.serial().to_bytes_be())
        .collect();
    serials.sort_unstable();
    let list = RevocationList {
        authority,
        number: number.to_bytes_be(),
        this_update: timestamp(list.last_update()),
        next_update: timestamp(next_update),
        serials,
        der: der.clone(),
    };
    Ok(Some((position, list)))
}

fn revoked(der: &CertificateRevocationListDer<'_>) -> Option<Vec<Revoked>> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let reason = |code: ReasonCode| match code {
        ReasonCode::KeyCompromise => Some(RevocationReason::KeyCompromise),
        ReasonCode::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
        ReasonCode::Superseded => Some(RevocationReason::Superseded),
        ReasonCode::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        ReasonCode::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
        _ => None,
    };
    let entries = list.iter_revoked_certificates().map(|entry| {
        let code = entry
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::ReasonCode(code) => Some(*code),
                _ => None,
            });
        Revoked {
            serial: entry.serial().to_bytes_be(),
            since: timestamp(entry.revocation_date),
            reason: code.and_then(reason),
        }
    });
    Some(entries.collect())
}
