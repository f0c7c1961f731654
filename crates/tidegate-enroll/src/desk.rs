//! Decides who gets a certificate, and writes it into the ledger before giving it out.
//!
//! Everything here blocks: files are locked and synced.

use crate::event::{Given, Refusal};
use crate::service::{Clock, Devices, Material, SUPERSEDED_GRACE, Standing};
use crate::tokens::{RedeemError, Tokens};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::time::Timestamp;
use tidegate_pki::est;
use tidegate_pki::identity::Leaf;
use tidegate_pki::inspect;
use tidegate_pki::ledger::{CertificateRole, How, Ledger, Record, State};
use tidegate_pki::profile::Profile;
use tidegate_pki::request::Request;

/// What certificates are given out from.
pub(crate) struct Desk {
    pub(crate) tokens: Tokens,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) devices: Devices,
    pub(crate) life: Duration,
    pub(crate) clock: Clock,
}

/// A certificate that may be given out: it is in the ledger.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) given: Given,
}

impl Desk {
    /// A first certificate, for a token. `body` is the request as it came.
    ///
    /// The token is used up once everything else is sound and the certificate is signed, and before
    /// it is recorded or seen by anyone: a bad request does not cost it, and of two requests at one
    /// time the second finds it used.
    pub(crate) fn enroll(
        &self,
        material: &Material,
        id: &DeviceId,
        secret: &str,
        body: &[u8],
    ) -> Result<Issued, Refusal> {
        let now = (self.clock)();
        // Whoever has no good token learns nothing about devices, and nothing they send is parsed.
        self.tokens.check(secret, id, now).map_err(refused)?;
        self.standing(id)?;
        let request = Request::parse_der(&est::decode_request(body)?)?;
        let signed = self.sign(material, &request, id, How::Enrolled, now)?;
        self.tokens.redeem(secret, id, now).map_err(refused)?;
        self.record(signed)
    }

    /// A certificate for the device that holds `leaf`, which TLS has verified.
    pub(crate) fn renew(&self, material: &Material, leaf: &Leaf, body: &[u8]) -> Result<Issued, Refusal> {
        let now = (self.clock)();
        let Principal::Certificate { id, role } = &leaf.principal else {
            return Err(Refusal::NoIdentity);
        };
        if *role != Role::Device {
            return Err(Refusal::NotDevice { role: *role });
        }
        self.current(leaf, id, now)?;
        self.standing(id)?;
        let request = Request::parse_der(&est::decode_request(body)?)?;
        let signed = self.sign(material, &request, id, How::Renewed, now)?;
        self.record(signed)
    }

    fn standing(&self, id: &DeviceId) -> Result<(), Refusal> {
        match (self.devices)(id) {
            Standing::Enabled => Ok(()),
            Standing::Disabled => Err(Refusal::DeviceDisabled),
            Standing::Unknown => Err(Refusal::UnknownDevice),
        }
    }

    /// TLS looked at the certificate when the connection began, or an earlier one that it resumes.
    fn current(&self, leaf: &Leaf, id: &DeviceId, now: Timestamp) -> Result<(), Refusal> {
        if now > leaf.not_after {
            return Err(Refusal::Expired { at: leaf.not_after });
        }
        let serial = hex::encode(&leaf.serial);
        let entries = self.ledger.certificates().map_err(unavailable)?;
        // One that the ledger lacks is older than the ledger; revocation lists apply to it.
        let Some(position) = entries.iter().position(|entry| entry.record.serial == serial) else {
            return Ok(());
        };
        match entries[position].state(now) {
            State::Revoked { since } => Err(Refusal::Revoked { since }),
            State::Superseded => {
                let newer = entries[position + 1..].iter().find(|entry| {
                    entry.record.id == *id
                        && entry.record.role == CertificateRole::Device
                        && entry.revoked.is_none()
                });
                match newer.map(|entry| entry.record.at) {
                    Some(since) if now.since(since) > SUPERSEDED_GRACE => Err(Refusal::Superseded { since }),
                    _ => Ok(()),
                }
            }
            State::Valid | State::Expired => Ok(()),
        }
    }

    /// What the certificate says comes from `id` alone.
    fn sign(
        &self,
        material: &Material,
        request: &Request,
        id: &DeviceId,
        how: How,
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, Record), Refusal> {
        let profile = Profile::device(id.clone()).lasting(self.life);
        let pem = material
            .authority
            .sign_request(request, &profile, now)
            .map_err(unavailable)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unavailable)?;
        let info =
            inspect::describe(certificate.clone(), Path::new("the new certificate")).map_err(unavailable)?;
        let record = Record {
            serial: info.serial,
            id: id.clone(),
            role: CertificateRole::Device,
            not_before: info.not_before,
            not_after: info.not_after,
            authority: material.authority.key_id(),
            how,
            at: now,
        };
        Ok((certificate, record))
    }

    fn record(&self, (certificate, record): (CertificateDer<'static>, Record)) -> Result<Issued, Refusal> {
        let given = Given {
            serial: record.serial.clone(),
            not_after: record.not_after,
        };
        self.ledger.record(record).map_err(unavailable)?;
        Ok(Issued { certificate, given })
    }
}

fn refused(error: RedeemError) -> Refusal {
    match error {
        RedeemError::Refused(refused) => refused.into(),
        RedeemError::Tokens(error) => unavailable(error),
    }
}

fn unavailable(error: impl Error) -> Refusal {
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        detail.push_str(": ");
        detail.push_str(&error.to_string());
        source = error.source();
    }
    Refusal::Unavailable { detail }
}
