//! Why a client's certificate is refused, in words that tell one cause from another.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, InvalidMessage, OtherError,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A verifier that says more than the one inside, and lets in exactly whom that one lets in.
pub(super) fn explaining(inside: Arc<dyn ClientCertVerifier>) -> Arc<dyn ClientCertVerifier> {
    Arc::new(Explaining(inside))
}

/// What stands behind two of webpki's errors that have several causes.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("it is signed by its own key")]
    SelfSigned,
    #[error("its issuer has the name of our CA, and not its key")]
    Impostor,
}

#[derive(Debug)]
struct Explaining(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Explaining {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| match error {
                Error::InvalidCertificate(CertificateError::UnknownIssuer) if is_self_signed(end_entity) => {
                    because(Cause::SelfSigned)
                }
                Error::InvalidCertificate(CertificateError::BadSignature) => because(Cause::Impostor),
                other => other,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }
}

fn because(cause: Cause) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(cause))))
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer() && parsed.verify_signature(None).is_ok())
}

/// A sentence for people. Causes that TLS has no word for stay in rustls's own.
pub(super) fn sentence(error: &Error) -> String {
    let cause = match error {
        Error::NoCertificatesPresented => return "no certificate was presented".to_owned(),
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            return "a message of the handshake is too large; certificates have at most 64 KiB".to_owned();
        }
        Error::InvalidCertificate(cause) => cause,
        other => return other.to_string(),
    };
    let why = match cause {
        CertificateError::BadEncoding => "it cannot be read as a certificate".to_owned(),
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "it expired {} s ago, by this machine's clock",
                between(*not_after, *time)
            )
        }
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "it becomes valid in {} s, by this machine's clock; one of the two may be wrong",
            between(*time, *not_before)
        ),
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::UnknownIssuer => "another CA has signed it".to_owned(),
        CertificateError::BadSignature => "the client does not hold its key".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for clients (extended key usage)".to_owned()
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the revocation list has expired, so nobody is let in; make a new one".to_owned()
        }
        CertificateError::UnknownRevocationStatus => "no revocation list of its CA is in use".to_owned(),
        CertificateError::Other(OtherError(cause)) => cause.to_string(),
        other => other.to_string(),
    };
    format!("the certificate is refused: {why}")
}

fn between(earlier: UnixTime, later: UnixTime) -> u64 {
    later.as_secs().saturating_sub(earlier.as_secs())
}
