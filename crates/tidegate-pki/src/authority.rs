//! The CA: a P-256 key in a file of its own, and what it signs.

use crate::files::{self, FileError, PRIVATE_MODE, PUBLIC_MODE};
use crate::identity;
use crate::inspect::{self, InspectError};
use crate::profile::{BACKDATE, CA_LIFE, Profile, Subject};
use crate::request::Request;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// The subject of every CA that is made here begins with this; the start of its key id follows.
///
/// Two CAs that are trusted at one time must have different names: a verifier picks the revocation
/// list of a certificate by its issuer's name, and would take the wrong one.
const CA_COMMON_NAME: &str = "Tidegate CA";
/// Bytes of the key id in the name of a CA: for people, and to keep names apart.
const NAME_BYTES: usize = 4;
const ORGANIZATION: &str = "Tidegate";
const SERVER_COMMON_NAME: &str = "tidegate-broker";
/// 2^-122 is the chance that two certificates share a serial number; RFC 5280 §4.1.2.2 allows 20 bytes.
const SERIAL_BYTES: usize = 16;
/// X.509 times end with the year 9999 (RFC 5280 §4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

/// A certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate file of the CA holds another kind of certificate.
    #[error("{} is not the certificate of a CA", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The CA's key file belongs to another certificate.
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A validity that ends before it starts, or lies before 1970 or after 9999.
    #[error("a validity from {from} to {to} is impossible")]
    Validity {
        /// Its start.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
    /// No verifier would accept the certificate to its end.
    #[error("the certificate would be valid until {asked}, but its CA only until {ca}")]
    OutlivesAuthority {
        /// The end that was asked for.
        asked: Timestamp,
        /// The end of the CA.
        ca: Timestamp,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[from] getrandom::Error),
    /// The key or the signature failed.
    #[error("the certificate library failed")]
    Library(#[from] rcgen::Error),
}

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    der: CertificateDer<'static>,
    not_after: Timestamp,
    key_id: Vec<u8>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("key_id", &self.key_id())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A certificate and its private key (PKCS#8 v1, which OpenSSL 3.0 reads), both in PEM.
pub struct Issued {
    /// For everyone.
    pub certificate_pem: String,
    /// For the holder alone; wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate that is no longer good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when.
    pub since: Timestamp,
    /// Why, where it was said.
    pub reason: Option<RevocationReason>,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). The reasons that could be taken back
/// (certificateHold, removeFromCRL) are left out: a revoked certificate stays revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// The private key may be known to others: a stolen or lost device.
    KeyCompromise,
    /// The holder's name or role is another now.
    AffiliationChanged,
    /// A newer certificate has taken its place.
    Superseded,
    /// The device is no longer in use.
    CessationOfOperation,
    /// The holder may no longer do what the certificate says.
    PrivilegeWithdrawn,
}

impl Authority {
    /// Makes a CA that is valid for [`CA_LIFE`], and writes certificate and key. The key's folder
    /// should not be the one that is handed to brokers and devices.
    ///
    /// Refuses to overwrite either file: a new CA would make every certificate of the old worthless.
    pub fn create(certificate: &Path, key: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        for path in [certificate, key] {
            if path.exists() {
                return Err(FileError::Exists { path: path.into() }.into());
            }
        }
        let authority = Self::generate(now)?;
        authority.write_key(key)?;
        files::write(
            certificate,
            authority.certificate_pem.as_bytes(),
            PUBLIC_MODE,
            false,
        )?;
        Ok(authority)
    }

    /// Makes a CA in memory: its key is gone when it is dropped. For tests, for an attacker's CA, and
    /// as the first step of a rotation.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let key_id = CertificateParams::default().key_identifier(&key);
        let name = format!("{CA_COMMON_NAME} {}", hex::encode(&key_id[..NAME_BYTES]));
        Self::of_key(key, &name, now)
    }

    /// Another CA with this one's name and a key of its own, as an attacker would make it.
    pub fn impostor(&self, now: Timestamp) -> Result<Self, AuthorityError> {
        let (_, parsed) =
            X509Certificate::from_der(&self.der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let name = parsed.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or(CA_COMMON_NAME);
        Self::of_key(KeyPair::generate()?, name, now)
    }

    fn of_key(key: KeyPair, name: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let (not_before, not_after) = (now.minus(BACKDATE), now.plus(CA_LIFE));
        let mut params = parameters(name, not_before, not_after)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            der: certificate.der().clone(),
            not_after,
            key_id: params.key_identifier(&key),
            issuer: Issuer::new(params, key),
        })
    }

    /// Opens the CA that [`Authority::create`] made. `certificate` may be a bundle of several CAs:
    /// the one that the key belongs to is meant.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let bundle = inspect::bundle(certificate).map_err(|error| match error {
            InspectError::File(error) => AuthorityError::File(error),
            InspectError::Certificate { path } | InspectError::NotAuthority { path } => {
                AuthorityError::NotAuthority { path }
            }
        })?;
        let text = files::read_private(key)?;
        let wrong_key = || FileError::WrongFile {
            path: key.into(),
            expected: "private key",
            is_key: false,
        };
        let pair = str::from_utf8(&text)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or_else(wrong_key)?;
        let public_key = pair.subject_public_key_info();
        let info = bundle
            .into_iter()
            .find(|info| info.public_key == public_key)
            .ok_or_else(|| AuthorityError::KeyMismatch {
                certificate: certificate.into(),
                key: key.into(),
            })?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&info.der, pair)?,
            certificate_pem: inspect::pem(&info.der),
            not_after: info.not_after,
            key_id: info.key_id,
            der: info.der,
        })
    }

    /// Writes the private key, readable by its owner only. Never overwrites.
    pub fn write_key(&self, path: &Path) -> Result<(), FileError> {
        let text = Zeroizing::new(self.issuer.key().serialize_pem());
        files::write(path, text.as_bytes(), PRIVATE_MODE, false)
    }

    /// The CA's certificate, which brokers and devices trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The end of the CA's own validity.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The CA's certificate in DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// What tells this CA from others: the key identifier in its certificate, in lower-case hex.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(&self.key_id)
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, profile: &Profile, now: Timestamp) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate_pem: self.certify(&key, profile, now)?,
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// Makes a certificate (PEM) for the key of a request. Everything it says comes from `profile`:
    /// the names that the request asked for are gone.
    pub fn sign_request(
        &self,
        request: &Request,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        self.certify(request.key(), profile, now)
    }

    fn certify(
        &self,
        key: &impl PublicKeyData,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let (not_before, not_after) = profile.validity.bounds(now);
        if not_after > self.not_after {
            return Err(AuthorityError::OutlivesAuthority {
                asked: not_after,
                ca: self.not_after,
            });
        }
        let common_name = match &profile.subject {
            Subject::Server { .. } => SERVER_COMMON_NAME,
            Subject::Client { id, .. } => id.as_str(),
        };
        let mut params = parameters(common_name, not_before, not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match &profile.subject {
            Subject::Server { names, addresses } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                let ascii = |name: &str| Ia5String::try_from(name).map(SanType::DnsName);
                params.subject_alt_names = names
                    .iter()
                    .map(|name| ascii(name.as_ref()))
                    .collect::<Result<_, _>>()?;
                params
                    .subject_alt_names
                    .extend(addresses.iter().copied().map(SanType::IpAddress));
            }
            Subject::Client { role, id } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity::uri(*role, id))?)];
            }
        }
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// A signed revocation list in PEM.
    ///
    /// `number` must be above that of every earlier list. Verifiers refuse all clients once `life`
    /// is over, so the next list must come well before.
    pub fn revocation_list(
        &self,
        number: u64,
        revoked: &[Revoked],
        now: Timestamp,
        life: Duration,
    ) -> Result<String, AuthorityError> {
        let epoch = date_time_ymd(1970, 1, 1);
        let (this_update, next_update) = span(now, now.plus(life))?;
        let revoked_certs = revoked
            .iter()
            .map(|entry| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&entry.serial),
                    revocation_time: epoch + span(entry.since, now.plus(life))?.0,
                    reason_code: entry.reason.map(reason_code),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, AuthorityError>>()?;
        let params = CertificateRevocationListParams {
            this_update: epoch + this_update,
            next_update: epoch + next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id.clone()),
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem` (mode 0600) into `folder`.
    ///
    /// Without `replace`, nothing is written when either exists.
    pub fn write(&self, folder: &Path, name: &str, replace: bool) -> Result<(), FileError> {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}-key.pem"));
        if let Some(path) = [&certificate, &key]
            .into_iter()
            .find(|path| !replace && path.exists())
        {
            return Err(FileError::Exists { path: path.clone() });
        }
        files::write(&key, self.key_pem.as_bytes(), PRIVATE_MODE, replace)?;
        files::write(
            &certificate,
            self.certificate_pem.as_bytes(),
            PUBLIC_MODE,
            replace,
        )
    }
}

const fn reason_code(reason: RevocationReason) -> rcgen::RevocationReason {
    match reason {
        RevocationReason::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged => rcgen::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
    }
}

fn parameters(
    common_name: &str,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    let (start, end) = span(not_before, not_after)?;
    (params.not_before, params.not_after) = (epoch + start, epoch + end);
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial)?;
    // Positive and of full length: neither a sign bit nor leading zeros.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// Whole seconds since 1970, for adding to rcgen's date of 1970: its date type has no other way in.
fn since_1970(time: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(time.as_micros().div_euclid(1_000_000)).ok()?;
    (seconds <= LAST_SECOND).then(|| Duration::from_secs(seconds))
}

fn span(from: Timestamp, to: Timestamp) -> Result<(Duration, Duration), AuthorityError> {
    match (since_1970(from), since_1970(to)) {
        (Some(start), Some(end)) if start < end => Ok((start, end)),
        _ => Err(AuthorityError::Validity { from, to }),
    }
}
