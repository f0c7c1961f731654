//! Every certificate that somebody holds: by the ledger, where the CA is here, and by the files.

use super::expiry::{Kind, Term, is_soon};
use crate::config::Config;
use crate::setup::ca::name_of;
use crate::setup::{self, CaPaths};
use anyhow::Result;
use std::collections::HashSet;
use std::time::Duration;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::crl::Accepted;
use tidegate_pki::inspect::{self, CertificateInfo, Usage};
use tidegate_pki::ledger::{CertificateRole as Recorded, Entry, Ledger};
use tidegate_pki::tls::{ClientAuth, ClientTrust};
use tidegate_serve::protocol::{CertificateRole, CertificateRow, CertificateState};

/// How long a certificate is shown, and alarms, after its end: a device that was taken out of use
/// must not alarm for ever.
const SHOWN_AFTER_END: Duration = Duration::from_secs(30 * 86_400);

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    id: String,
    role: CertificateRole,
    serial: String,
    from: Timestamp,
    until: Timestamp,
    authority: String,
    standing: Standing,
}

/// What the clock does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    InUse,
    Superseded,
    Revoked,
}

/// Reads all of them. At a level without client certificates, only the server's and the CAs count.
pub(super) fn read(config: &Config, now: Timestamp) -> Result<Vec<Held>> {
    if !config.level.has_tls() {
        return Ok(Vec::new());
    }
    let (paths, certs) = (CaPaths::of(config), &config.files.certs);
    let bundle = inspect::bundle(&paths.bundle)?;
    let mut held: Vec<_> = bundle.iter().map(of_authority).collect();
    let mut known = HashSet::new();
    if paths.ledger.exists() {
        for entry in Ledger::open(&paths.ledger)?.certificates()? {
            held.push(of_entry(&entry, &bundle));
            known.insert(entry.record.serial);
        }
        // A certificate from elsewhere may be in use all the same.
        for name in [setup::SERVER, setup::GATEWAY] {
            let file = inspect::certificate(&certs.join(format!("{name}.pem")));
            held.extend(
                file.into_iter()
                    .filter(|info| !known.contains(&info.serial))
                    .filter_map(|info| of_file(&info, &bundle)),
            );
        }
    } else {
        let files = inspect::list(certs)?.into_iter().flatten();
        held.extend(files.filter_map(|info| of_file(&info, &bundle)));
    }
    let oldest = now.minus(SHOWN_AFTER_END);
    held.retain(|held| match held.standing {
        Standing::InUse => held.until >= oldest,
        Standing::Superseded | Standing::Revoked => held.until >= now,
    });
    if !config.level.has_client_certificates() {
        held.retain(|held| held.role <= CertificateRole::Server);
    }
    Ok(held)
}

/// CAs and lists as the files have them; `None` where there are none that are good. Whoever uses them
/// says what is wrong with them.
pub(super) fn trust(config: &Config) -> Option<ClientTrust> {
    if !config.level.has_client_certificates() {
        return None;
    }
    let paths = CaPaths::of(config);
    let auth = ClientAuth {
        ca: paths.bundle,
        crl: Some(paths.lists),
    };
    ClientTrust::load(&auth, &mut Accepted::new()).ok()
}

impl Held {
    /// As the page shows it; `None` once it does not count any more.
    pub(super) fn row(&self, now: Timestamp) -> Option<CertificateRow> {
        let state = match self.standing {
            Standing::Revoked => CertificateState::Revoked,
            Standing::Superseded if now > self.until => return None,
            Standing::Superseded => CertificateState::Superseded,
            Standing::InUse if now > self.until => CertificateState::Expired,
            Standing::InUse if is_soon(self.from, self.until, now) => CertificateState::Expiring,
            Standing::InUse => CertificateState::Valid,
        };
        Some(CertificateRow {
            id: self.id.clone(),
            role: self.role,
            serial: self.serial.clone(),
            not_before_ms: self.from.as_millis(),
            not_after_ms: self.until.as_millis(),
            state,
            authority: self.authority.clone(),
        })
    }

    /// Its term, if its end would be missed.
    pub(super) fn term(&self) -> Option<Term<'_>> {
        (self.standing == Standing::InUse).then(|| Term {
            kind: match self.role {
                CertificateRole::Authority => Kind::Authority,
                CertificateRole::Server => Kind::Server,
                CertificateRole::Gateway => Kind::Gateway,
                CertificateRole::Operator => Kind::Operator,
                CertificateRole::Device => Kind::Device,
            },
            name: &self.id,
            key: self.serial.clone(),
            from: self.from,
            until: self.until,
        })
    }
}

/// The page's word for a role.
pub(super) fn role_of(role: Role) -> CertificateRole {
    match role {
        Role::Device => CertificateRole::Device,
        Role::Gateway => CertificateRole::Gateway,
        Role::Operator => CertificateRole::Operator,
    }
}

fn of_authority(info: &CertificateInfo) -> Held {
    Held {
        id: info.subject.clone(),
        role: CertificateRole::Authority,
        serial: info.serial.clone(),
        from: info.not_before,
        until: info.not_after,
        authority: info.subject.clone(),
        standing: Standing::InUse,
    }
}

fn of_entry(entry: &Entry, bundle: &[CertificateInfo]) -> Held {
    let record = &entry.record;
    let signer = bundle
        .iter()
        .find(|info| hex::encode(&info.key_id) == record.authority);
    Held {
        id: record.id.to_string(),
        role: match record.role {
            Recorded::Server => CertificateRole::Server,
            Recorded::Device => CertificateRole::Device,
            Recorded::Gateway => CertificateRole::Gateway,
            Recorded::Operator => CertificateRole::Operator,
        },
        serial: record.serial.clone(),
        from: record.not_before,
        until: record.not_after,
        authority: signer.map_or_else(|| record.authority.clone(), |info| info.subject.clone()),
        standing: match (entry.revoked, entry.superseded) {
            (Some(_), _) => Standing::Revoked,
            (None, true) => Standing::Superseded,
            (None, false) => Standing::InUse,
        },
    }
}

/// A file that is in no ledger; `None` for one that is neither a server's nor a client's of ours.
fn of_file(info: &CertificateInfo, bundle: &[CertificateInfo]) -> Option<Held> {
    let signer = inspect::issuer_of(&info.der, bundle)?;
    let (id, role) = match (&info.identity, info.role, info.usage) {
        (Some(id), Some(role), Usage::Client) => (id.to_string(), role_of(role)),
        (None, None, Usage::Server) => (name_of(&info.path), CertificateRole::Server),
        _ => return None,
    };
    Some(Held {
        id,
        role,
        serial: info.serial.clone(),
        from: info.not_before,
        until: info.not_after,
        authority: signer.subject.clone(),
        standing: Standing::InUse,
    })
}
