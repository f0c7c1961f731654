//! Writes the revocation lists of all CAs from what the ledger says.

use crate::authority::{Authority, AuthorityError};
use crate::crl::{self, CrlError, RevocationList};
use crate::files::{self, FileError, PUBLIC_MODE};
use crate::inspect::{self, CertificateInfo, InspectError};
use crate::ledger::{LedgerError, Locked};
use crate::profile::BACKDATE;
use std::path::Path;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// How long a list is in force; verifiers refuse all clients after it.
pub const CRL_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// A list older than this is signed anew, so that a gateway whose CA is away has days left.
pub const CRL_REFRESH: Duration = Duration::from_secs(86_400);

/// The lists could not be written; the old ones stay.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The ledger could not be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A list could not be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The present lists are damaged: what they revoke is not known, and must not be lost.
    #[error("the present revocation lists cannot be taken over")]
    Present(#[from] CrlError),
    /// A CA's own certificate could not be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A list that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The CA that signed it: its key id in lower-case hex.
    pub authority: String,
    /// Its crlNumber.
    pub number: u64,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// When the next one is due.
    pub next_update: Timestamp,
}

/// Signs a new list of each CA and puts them into the file at `path`, in one step: a reader sees the
/// old lists or the new.
///
/// What the present file revokes stays revoked even when the ledger has lost it, and its numbers
/// are passed. A present file that is damaged is an error; to give it up, remove it.
pub fn write_lists(
    ledger: &mut Locked<'_>,
    authorities: &[Authority],
    path: &Path,
    now: Timestamp,
) -> Result<Vec<Written>, RevocationError> {
    let infos: Vec<CertificateInfo> = authorities
        .iter()
        .map(|authority| inspect::describe(authority.der().clone(), path))
        .collect::<Result<_, _>>()?;
    let present = if path.exists() {
        crl::history(path, &infos)?
    } else {
        Vec::new()
    };
    for (_, revoked) in &present {
        for entry in revoked {
            ledger.revoke(&hex::encode(&entry.serial), entry.since, entry.reason)?;
        }
    }
    let mut text = String::new();
    let mut written = Vec::new();
    let next_update = now.plus(CRL_LIFE);
    for authority in authorities {
        let key_id = authority.key_id();
        let passed = present.iter().filter(|(list, _)| list.authority == key_id);
        let passed = passed.map(|(list, _)| number(list).saturating_add(1)).max();
        let number = ledger.next_crl_number(&key_id)?.max(passed.unwrap_or(1));
        // A certificate that has just ended stays listed for one more life of a list: clocks differ.
        let revoked = ledger.revoked(&key_id, now.minus(CRL_LIFE))?;
        // From a little earlier, so that a gateway whose clock is behind can use it at once.
        let list = authority.revocation_list(number, &revoked, now.minus(BACKDATE), CRL_LIFE + BACKDATE)?;
        text.push_str(&list);
        written.push(Written {
            authority: key_id,
            number,
            revoked: revoked.len(),
            next_update,
        });
    }
    // Recorded first: a number is never used twice, even when the file cannot be written.
    for list in &written {
        ledger.record_list(&list.authority, list.number, now)?;
    }
    files::write(path, text.as_bytes(), PUBLIC_MODE, true)?;
    Ok(written)
}

/// Whether the lists at `path` should be signed anew: one is missing, not in force, older than
/// [`CRL_REFRESH`], or does not name a certificate that the ledger says is revoked.
pub fn is_due(
    ledger: &Locked<'_>,
    authorities: &[Authority],
    path: &Path,
    now: Timestamp,
) -> Result<bool, RevocationError> {
    let infos: Vec<CertificateInfo> = authorities
        .iter()
        .map(|authority| inspect::describe(authority.der().clone(), path))
        .collect::<Result<_, _>>()?;
    let Ok(lists) = crl::read(path, &infos, now) else {
        return Ok(true);
    };
    for list in &lists {
        let revoked = ledger.revoked(&list.authority, now)?;
        let complete = revoked.iter().all(|entry| list.revokes(&entry.serial));
        if !complete || now.since(list.this_update) > CRL_REFRESH {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of a list; one above 2^64 counts as the highest.
fn number(list: &RevocationList) -> u64 {
    list.number
        .iter()
        .try_fold(0_u64, |number, byte| {
            number.checked_mul(256).map(|number| number + u64::from(*byte))
        })
        .unwrap_or(u64::MAX)
}
