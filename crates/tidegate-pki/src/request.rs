//! Certificate requests (PKCS#10, RFC 2986): what a device sends, and what is taken from it.
//!
//! Only the key is taken. Names, extensions and attributes of a request are wishes of somebody who
//! has not proven who they are; the certificate says what the registry says.

use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::alg_id;
use std::fmt;
use tidegate_envelope::id::DeviceId;
use x509_parser::asn1_rs::Tag;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;
use zeroize::Zeroizing;

/// Largest request that is looked at. One with a P-384 key and a long name has about 500 bytes.
pub const MAX_REQUEST_BYTES: usize = 8_192;

/// Characters of a foreign object identifier that an error shows.
const MAX_SHOWN: usize = 64;

/// Tags of DER (X.690 §8).
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// First byte of an elliptic-curve point that is written in full (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// The kinds of keys that are certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// NIST P-256, the usual one.
    P256,
    /// NIST P-384.
    P384,
    /// Ed25519 (RFC 8410). Mosquitto with OpenSSL takes it, mbedTLS does not.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A request is refused. The reasons are told apart because whoever wrote the client needs them;
/// none of them says anything about other devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing was sent.
    #[error("the certificate request is empty")]
    Empty,
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("the certificate request has {bytes} bytes; {MAX_REQUEST_BYTES} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Junk, or cut off.
    #[error("not a certificate request (PKCS#10 in DER)")]
    Damaged,
    /// A good request, and then more.
    #[error("{bytes} bytes follow the certificate request")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// PKCS#10 has one version, 1.
    #[error("version {version} of certificate requests is not known; only 1 is")]
    Version {
        /// The version as people count, which is one more than what is written.
        version: u64,
    },
    /// A key of a kind that is not certified here.
    #[error("a key of kind {kind} is not certified here: make a P-256, P-384 or Ed25519 key")]
    KeyKind {
        /// The kind, or its object identifier.
        kind: String,
    },
    /// The key is of a known kind but is no point on its curve, or is written in another form.
    #[error("the public key in the certificate request is damaged or compressed")]
    Key,
    /// Signed in a way that none of these keys is used with here.
    #[error("a signature of kind {kind} is not taken here: sign with SHA-256 or SHA-384, or use Ed25519")]
    SignatureKind {
        /// The object identifier.
        kind: String,
    },
    /// The sender does not have the private key, or the request was changed on the way.
    #[error("the certificate request is not signed by the key in it")]
    Signature,
}

/// A request that was signed by the key in it.
#[derive(Clone)]
pub struct Request {
    key: SubjectPublicKeyInfo,
    kind: KeyKind,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Reads a request and checks that its sender has the private key (RFC 2986 §3).
    ///
    /// A false accept certifies a key that somebody else holds; a false reject makes one device
    /// ask again.
    pub fn parse_der(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.is_empty() {
            return Err(RequestError::Empty);
        }
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge { bytes: bytes.len() });
        }
        let (rest, parsed) = X509CertificationRequest::from_der(bytes).map_err(|_| RequestError::Damaged)?;
        if !rest.is_empty() {
            return Err(RequestError::Trailing { bytes: rest.len() });
        }
        let info = &parsed.certification_request_info;
        if info.version != X509Version::V1 {
            let version = u64::from(info.version.0) + 1;
            return Err(RequestError::Version { version });
        }
        let kind = kind(&info.subject_pki)?;
        let point = &info.subject_pki.subject_public_key;
        let whole = match kind {
            KeyKind::P256 => point.data.len() == 65 && point.data[0] == UNCOMPRESSED,
            KeyKind::P384 => point.data.len() == 97 && point.data[0] == UNCOMPRESSED,
            KeyKind::Ed25519 => point.data.len() == 32,
        };
        if !whole || point.unused_bits != 0 {
            return Err(RequestError::Key);
        }
        // The parser takes other spellings of what is not signed; DER has one.
        if bytes != spelling(info.raw, &parsed)? {
            return Err(RequestError::Damaged);
        }
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| RequestError::Key)?;
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(Self { key, kind })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn key_kind(&self) -> KeyKind {
        self.kind
    }

    /// The key as SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7).
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    pub(crate) const fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

/// The machine that makes the request lacks random bytes, or the library failed.
#[derive(Debug, thiserror::Error)]
#[error("the certificate request could not be made")]
pub struct MakeError(#[from] rcgen::Error);

/// A new key and the request that asks for its certificate.
pub struct Made {
    /// The private key (P-256, PKCS#8 v1 in PEM); wiped when dropped. It never leaves the device.
    pub key_pem: Zeroizing<String>,
    /// The request in DER.
    pub der: Vec<u8>,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made")
            .field("der", &self.der)
            .finish_non_exhaustive()
    }
}

/// Makes a P-256 key and a request for it. `id` stands in it as CN for people who look at it; what
/// the certificate says is decided by the CA.
pub fn make(id: &DeviceId) -> Result<Made, MakeError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, id.as_str());
    Ok(Made {
        der: params.serialize_request(&key)?.der().to_vec(),
        key_pem: Zeroizing::new(key.serialize_pem()),
    })
}

/// The one spelling of a request in DER.
fn spelling(info: &[u8], parsed: &X509CertificationRequest<'_>) -> Result<Vec<u8>, RequestError> {
    let oid = &parsed.signature_algorithm.algorithm;
    let algorithm = if *oid == OID_SIG_ECDSA_WITH_SHA256 {
        alg_id::ECDSA_SHA256
    } else if *oid == OID_SIG_ECDSA_WITH_SHA384 {
        alg_id::ECDSA_SHA384
    } else if *oid == OID_SIG_ED25519 {
        alg_id::ED25519
    } else {
        return Err(RequestError::SignatureKind {
            kind: shown(&oid.to_id_string()),
        });
    };
    let algorithm = der(SEQUENCE, &[&algorithm]);
    let signature = der(BIT_STRING, &[&[0], &parsed.signature_value.data]);
    Ok(der(SEQUENCE, &[info, &algorithm, &signature]))
}

/// An object identifier may be as long as the request.
fn shown(identifier: &str) -> String {
    identifier.chars().take(MAX_SHOWN).collect()
}

/// Tag, length and value (X.690 §8.1), for up to [`MAX_REQUEST_BYTES`].
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let [.., high, low] = length.to_be_bytes();
    let header = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&[&header[..]], parts].concat().concat()
}

fn kind(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<KeyKind, RequestError> {
    let refused = |kind: String| Err(RequestError::KeyKind { kind: shown(&kind) });
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(KeyKind::Ed25519);
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return refused("RSA".into());
    }
    if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return refused(algorithm.to_id_string());
    }
    // The curve is named; explicit parameters have been used to smuggle in curves of one's own
    // (CVE-2020-0601).
    let parameters = key.algorithm.parameters.as_ref();
    let named = parameters.filter(|any| any.tag() == Tag::Oid);
    let curve = named.and_then(|any| any.as_oid().ok());
    match curve {
        Some(curve) if curve == OID_EC_P256 => Ok(KeyKind::P256),
        Some(curve) if curve == OID_NIST_EC_P384 => Ok(KeyKind::P384),
        Some(curve) if curve == OID_NIST_EC_P521 => refused("P-521".into()),
        Some(curve) => refused(format!("elliptic curve {}", curve.to_id_string())),
        None => refused("elliptic curve with parameters of its own".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Vec<u8> {
        make(&DeviceId::new("device-001").unwrap()).unwrap().der
    }

    #[test]
    fn made_request_is_taken_with_its_key_and_one_cut_or_lengthened_by_a_byte_is_not() {
        let der = made();
        let request = Request::parse_der(&der).unwrap();
        assert_eq!(request.key_kind(), KeyKind::P256);
        assert_eq!(request.public_key().len(), 91);
        let longer = [&der[..], &[0]].concat();
        assert_eq!(
            Request::parse_der(&longer).unwrap_err(),
            RequestError::Trailing { bytes: 1 }
        );
        for end in 1..der.len() {
            let refused = Request::parse_der(&der[..end]).unwrap_err();
            assert_eq!(refused, RequestError::Damaged, "cut at {end}");
        }
    }

    #[test]
    fn request_with_any_one_bit_changed_is_refused() {
        let der = made();
        for bit in 0..der.len() * 8 {
            let mut changed = der.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Request::parse_der(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn empty_oversize_and_junk_are_refused_by_name() {
        assert_eq!(Request::parse_der(&[]).unwrap_err(), RequestError::Empty);
        let bytes = MAX_REQUEST_BYTES + 1;
        assert_eq!(
            Request::parse_der(&vec![0x30; bytes]).unwrap_err(),
            RequestError::TooLarge { bytes }
        );
        for junk in [
            &b"hello"[..],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0; 64],
        ] {
            assert_eq!(
                Request::parse_der(junk).unwrap_err(),
                RequestError::Damaged,
                "{junk:?}"
            );
        }
        let nested = vec![0x30; MAX_REQUEST_BYTES];
        assert_eq!(Request::parse_der(&nested).unwrap_err(), RequestError::Damaged);
    }

    #[test]
    fn private_key_does_not_show_in_debug_output() {
        let made = make(&DeviceId::new("device-001").unwrap()).unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
