//! The CA: a P-256 key in a file of its own, and what it signs.

use crate::files::{self, FileError, PRIVATE_MODE, PUBLIC_MODE};
use crate::identity;
use crate::inspect;
use crate::profile::{BACKDATE, CA_LIFE, Profile, Subject};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_envelope::time::Timestamp;
use zeroize::Zeroizing;

/// The subject of every CA that is made here. Nothing is decided by it: only the key tells CAs apart.
const CA_COMMON_NAME: &str = "Tidegate CA";
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
    not_after: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
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
        let key_pem = Zeroizing::new(authority.issuer.key().serialize_pem());
        files::write(key, key_pem.as_bytes(), PRIVATE_MODE, false)?;
        files::write(
            certificate,
            authority.certificate_pem.as_bytes(),
            PUBLIC_MODE,
            false,
        )?;
        Ok(authority)
    }

    /// Makes a CA in memory: its key is gone when it is dropped. For tests, and for an attacker's CA.
    pub fn generate(now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let (not_before, not_after) = (now.minus(BACKDATE), now.plus(CA_LIFE));
        let mut params = parameters(CA_COMMON_NAME, not_before, not_after)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
            not_after,
        })
    }

    /// Opens the CA that [`Authority::create`] made.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let info = inspect::certificate(certificate).map_err(|error| match error {
            inspect::InspectError::File(error) => AuthorityError::File(error),
            inspect::InspectError::Certificate { path } => AuthorityError::NotAuthority { path },
        })?;
        if info.usage != inspect::Usage::Authority {
            return Err(AuthorityError::NotAuthority {
                path: certificate.into(),
            });
        }
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
        if rcgen::PublicKeyData::subject_public_key_info(&pair) != info.public_key {
            return Err(AuthorityError::KeyMismatch {
                certificate: certificate.into(),
                key: key.into(),
            });
        }
        let certificate_pem = String::from_utf8_lossy(&files::read(certificate)?).into_owned();
        let issuer = Issuer::from_ca_cert_der(&info.der, pair)?;
        Ok(Self {
            issuer,
            certificate_pem,
            not_after: info.not_after,
        })
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

    /// Makes a key and a certificate for it.
    pub fn issue(&self, profile: &Profile, now: Timestamp) -> Result<Issued, AuthorityError> {
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
        let key = KeyPair::generate()?;
        Ok(Issued {
            certificate_pem: params.signed_by(&key, &self.issuer)?.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
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
                    reason_code: None,
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
            key_identifier_method: KeyIdMethod::Sha256,
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
