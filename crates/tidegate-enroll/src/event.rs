//! What the service tells whoever runs it: certificates that were given out, and who was refused.

use crate::tokens::TokenRefused;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::est::EstError;
use tidegate_pki::request::RequestError;

/// Called for every [`Event`], on the thread that it happens on: it must not block.
pub type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that belongs into the log of security events.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Who was connected.
    pub peer: SocketAddr,
    /// The device that it is about. Proven after [`What::Enrolled`] and [`What::Renewed`], and
    /// wherever a certificate was shown; otherwise it is what a stranger claims.
    pub device: Option<DeviceId>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// A device got a certificate for its token.
    Enrolled(Given),
    /// A device got a certificate for the one it has.
    Renewed(Given),
    /// Somebody got none.
    Refused(Refusal),
}

/// A certificate that was given out, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its serial number in hex.
    pub serial: String,
    /// The end of its validity.
    pub not_after: Timestamp,
}

/// Why somebody got no certificate. The text is also what the client is told, but for
/// [`Refusal::Unavailable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is not good for this device now.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// HTTP Basic credentials that are none, or that name no device.
    #[error("the credentials are not HTTP Basic with the device's id as user and its token as password")]
    Credentials,
    /// The registry does not have the device.
    #[error("no device of this id is registered")]
    UnknownDevice,
    /// The registry has it turned off.
    #[error("the device is disabled")]
    DeviceDisabled,
    /// The body of a request has another content type.
    #[error("the content type is not application/pkcs10")]
    ContentType,
    /// The body is not what EST says.
    #[error(transparent)]
    Body(#[from] EstError),
    /// The certificate request in it is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The body is longer than [`MAX_BODY_BYTES`](crate::limits::MAX_BODY_BYTES).
    #[error("the body is longer than {} bytes", crate::limits::MAX_BODY_BYTES)]
    Oversize,
    /// The request's body was cut off, or too slow.
    #[error("the body did not come whole and in time")]
    BodyIncomplete,
    /// More requests than allowed. Told once a second at most, however many there are.
    #[error("too many requests")]
    RateLimited,
    /// More connections than allowed. Told once a second at most, however many there are.
    #[error("too many connections")]
    ConnectionLimit,
    /// Renewal without a certificate.
    #[error("a certificate is renewed over a connection that shows it")]
    NoCertificate,
    /// The certificate names no identity of ours.
    #[error("the certificate names no device")]
    NoIdentity,
    /// The certificate belongs to a gateway or an operator.
    #[error("only certificates of devices are renewed here")]
    NotDevice {
        /// Whose it is.
        role: Role,
    },
    /// The certificate ended while its connection or TLS session was alive.
    #[error("the certificate expired at {at}: enrol the device with a token")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// The certificate is revoked.
    #[error("the certificate is revoked since {since}")]
    Revoked {
        /// Since when.
        since: Timestamp,
    },
    /// The device has had a newer one for longer than
    /// [`SUPERSEDED_GRACE`](crate::service::SUPERSEDED_GRACE): two hold this identity.
    #[error("the device has a newer certificate since {since}: if it lost that one, enrol it with a token")]
    Superseded {
        /// When the newer one was made.
        since: Timestamp,
    },
    /// No TLS connection came of it. `reason` says whether the certificate was expired, revoked or
    /// foreign.
    #[error("the TLS handshake failed: {detail}")]
    Handshake {
        /// As [`tidegate_pki::tls::classify`] has it.
        reason: Reason,
        /// What rustls said.
        detail: String,
    },
    /// No complete TLS handshake in time.
    #[error("no complete TLS handshake in time")]
    HandshakeTimeout,
    /// The fault is here: a file, the CA, or a certificate that would outlive the CA. The detail is
    /// not told to clients.
    #[error("no certificate can be issued: {detail}")]
    Unavailable {
        /// The chain of errors.
        detail: String,
    },
}

impl Refusal {
    /// A stable name for logs and counters: `token_used`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Token(TokenRefused::Unknown) => "token_unknown",
            Self::Token(TokenRefused::Used { .. }) => "token_used",
            Self::Token(TokenRefused::Expired { .. }) => "token_expired",
            Self::Token(TokenRefused::OtherDevice { .. }) => "token_of_other_device",
            Self::Token(TokenRefused::NotYet { .. }) => "token_from_future",
            Self::Credentials => "credentials",
            Self::UnknownDevice => "unknown_device",
            Self::DeviceDisabled => "device_disabled",
            Self::ContentType => "content_type",
            Self::Body(_) => "body",
            Self::Request(RequestError::Signature) => "request_not_signed_by_its_key",
            Self::Request(RequestError::KeyKind { .. }) => "request_key_kind",
            Self::Request(_) => "request",
            Self::Oversize => "oversize",
            Self::BodyIncomplete => "body_incomplete",
            Self::RateLimited => "rate_limited",
            Self::ConnectionLimit => "connection_limit",
            Self::NoCertificate => "no_certificate",
            Self::NoIdentity => "no_identity",
            Self::NotDevice { .. } => "not_a_device",
            Self::Expired { .. } => "certificate_expired",
            Self::Revoked { .. } => "certificate_revoked",
            Self::Superseded { .. } => "certificate_superseded",
            Self::Handshake { .. } => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// The reason in the words of the event log, which are fewer.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Token(TokenRefused::OtherDevice { .. }) => Reason::IdentityMismatch,
            Self::Token(_) | Self::Credentials | Self::NotDevice { .. } | Self::Superseded { .. } => {
                Reason::NotAuthorized
            }
            Self::UnknownDevice => Reason::UnknownDevice,
            Self::DeviceDisabled => Reason::DeviceDisabled,
            Self::ContentType | Self::Body(_) | Self::Request(_) => Reason::Malformed,
            Self::Oversize => Reason::Oversize,
            Self::RateLimited => Reason::RateLimited,
            Self::BodyIncomplete | Self::HandshakeTimeout => Reason::ConnectTimeout,
            Self::ConnectionLimit => Reason::ConnectionLimit,
            Self::NoCertificate => Reason::TlsNoCertificate,
            Self::NoIdentity => Reason::TlsBadCertificate,
            Self::Expired { .. } => Reason::TlsExpired,
            Self::Revoked { .. } => Reason::TlsRevoked,
            Self::Handshake { reason, .. } => *reason,
            Self::Unavailable { .. } => Reason::StorageUnavailable,
        }
    }
}
