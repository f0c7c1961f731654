//! Who a certificate says its holder is: its SAN URI `urn:tidegate:<role>:<id>`, and nothing else.

use rustls_pki_types::CertificateDer;
use tidegate_envelope::id::{DeviceId, NameError};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::time::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const PREFIX: &str = "urn:tidegate:";

/// The certificate names no identity of ours, although our CA may have signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not an X.509 certificate.
    #[error("not an X.509 certificate")]
    Certificate,
    /// No SAN URI begins with `urn:tidegate:`; a server's certificate has none, for example.
    #[error("the certificate has no SAN URI `{PREFIX}<role>:<id>`")]
    Missing,
    /// Two identities in one certificate: which one is meant cannot be known.
    #[error("the certificate has more than one SAN URI `{PREFIX}...`")]
    Ambiguous,
    /// The role is none of ours.
    #[error("`{0}` is not a role: device, gateway and operator are")]
    Role(String),
    /// The id is not a name.
    #[error("the identity in the certificate is refused")]
    Name(#[from] NameError),
}

/// What the broker keeps of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Always [`Principal::Certificate`].
    pub principal: Principal,
    /// The serial number, big-endian and without leading zeros: what a revocation list names.
    pub serial: Vec<u8>,
    /// The end of its validity. A session that outlives it, or resumes after it, must be closed
    /// by whoever holds it: TLS looks only at the first handshake.
    pub not_after: Timestamp,
}

/// The identity of a client whose certificate TLS has verified.
///
/// The signature is not checked here. Taking a certificate that TLS did not verify would let
/// anyone be anyone; refusing a good one keeps one device out.
pub fn principal(certificate: &CertificateDer<'_>) -> Result<Principal, IdentityError> {
    leaf(certificate).map(|leaf| leaf.principal)
}

/// As [`principal`], with serial number and end of validity.
pub fn leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, IdentityError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Certificate)?;
    if !rest.is_empty() {
        return Err(IdentityError::Certificate);
    }
    let (role, id) = of_parsed(&parsed)?;
    Ok(Leaf {
        principal: Principal::Certificate { id, role },
        serial: serial(&parsed),
        not_after: timestamp(parsed.validity().not_after),
    })
}

/// The SAN URI of a client.
pub(crate) fn uri(role: Role, id: &DeviceId) -> String {
    format!("{PREFIX}{}:{id}", role_name(role))
}

/// How a role is written.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Device => "device",
        Role::Gateway => "gateway",
        Role::Operator => "operator",
    }
}

pub(crate) fn of_parsed(certificate: &X509Certificate<'_>) -> Result<(Role, DeviceId), IdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Certificate)?;
    let mut identities = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(PREFIX),
            _ => None,
        });
    let identity = identities.next().ok_or(IdentityError::Missing)?;
    if identities.next().is_some() {
        return Err(IdentityError::Ambiguous);
    }
    // The id cannot hold a colon, so the first one ends the role.
    let (role, id) = identity.split_once(':').ok_or(IdentityError::Missing)?;
    let role = [Role::Device, Role::Gateway, Role::Operator]
        .into_iter()
        .find(|known| role_name(*known) == role)
        .ok_or_else(|| IdentityError::Role(role.chars().take(32).flat_map(char::escape_default).collect()))?;
    Ok((role, DeviceId::new(id)?))
}

/// The serial number without the zero that DER puts before a high bit.
pub(crate) fn serial(certificate: &X509Certificate<'_>) -> Vec<u8> {
    let raw = certificate.raw_serial();
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    raw[zeros..].to_vec()
}

pub(crate) fn timestamp(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_micros(time.timestamp().saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[track_caller]
    fn check(uris: &[&str], expected: Result<(Role, &str), IdentityError>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "device-999");
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = expected.map(|(role, id)| Principal::Certificate {
            id: DeviceId::new(id).unwrap(),
            role,
        });
        assert_eq!(principal(certificate.der()), expected, "{uris:?}");
    }

    #[test]
    fn identity_is_read_from_the_san_uri_with_its_role() {
        check(
            &["urn:tidegate:device:device-001"],
            Ok((Role::Device, "device-001")),
        );
        check(&["urn:tidegate:gateway:g"], Ok((Role::Gateway, "g")));
        check(
            &["https://example.org/", "urn:tidegate:operator:o"],
            Ok((Role::Operator, "o")),
        );
    }

    #[test]
    fn common_name_alone_is_no_identity() {
        check(&[], Err(IdentityError::Missing));
        check(&["urn:other:device:device-001"], Err(IdentityError::Missing));
        check(&["urn:tidegate:device"], Err(IdentityError::Missing));
    }

    #[test]
    fn two_identities_an_unknown_role_and_a_name_with_wildcards_are_refused() {
        let two = ["urn:tidegate:device:a", "urn:tidegate:device:b"];
        check(&two, Err(IdentityError::Ambiguous));
        check(
            &["urn:tidegate:admin:a"],
            Err(IdentityError::Role("admin".into())),
        );
        check(
            &["urn:tidegate:Device:a"],
            Err(IdentityError::Role("Device".into())),
        );
        for id in ["", "#", "a/b", "a:b"] {
            let refused = DeviceId::new(id).unwrap_err();
            check(
                &[&format!("urn:tidegate:device:{id}")],
                Err(IdentityError::Name(refused)),
            );
        }
        assert_eq!(
            principal(&CertificateDer::from(vec![0x30, 0])),
            Err(IdentityError::Certificate)
        );
    }
}
