//! Why a device has no new certificate, and what to do about it.

use super::pin::Fingerprint;
use super::{EXCHANGE_WITHIN, Server};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::est::EstError;
use tidegate_pki::files::{FileError, MAX_CHAIN};
use tidegate_pki::inspect::InspectError;
use tidegate_pki::request::{MakeError, RequestError};
use tidegate_pki::tls::TlsError;
use tokio::task::JoinError;

/// A certificate was not fetched, or what came was refused. Nothing on the disk has changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The names of the device's files are those of other files.
    #[error("a device cannot be named `{0}`: files of that name belong to the CA, the server or a key")]
    Reserved(DeviceId),
    /// The device has a certificate or a key already, and replacing it was not asked for.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process fetches a certificate for the same device now.
    #[error("another process changes the certificate of {device} now: {} is locked", path.display())]
    InUse {
        /// The device.
        device: DeviceId,
        /// The lock.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder of the certificates could not be changed.
    #[error("cannot {what} {}", path.display())]
    Folder {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The device's own certificate, its key or the CA's file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No key or no request could be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The request that was made here cannot be read here.
    #[error("the certificate request of this device is damaged")]
    OwnRequest(#[from] RequestError),
    /// The host is neither a name nor an address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Host(String),
    /// Nobody listens there, or the network is down.
    #[error("cannot connect to {server}: is the gateway's enrolment service on, and the port right?")]
    Connect {
        /// Where.
        server: Server,
        /// What the operating system said.
        source: io::Error,
    },
    /// No answer within [`EXCHANGE_WITHIN`].
    #[error("no answer from {server} within {} s", EXCHANGE_WITHIN.as_secs())]
    Timeout {
        /// Where.
        server: Server,
    },
    /// The server's certificate is of another CA, or names another host.
    #[error(
        "{server} is not a server of the CA that this device trusts, or its certificate does not carry \
         this name: check the host, and compare the CA's file with the gateway's"
    )]
    UntrustedServer {
        /// Where.
        server: Server,
        /// What TLS said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// By this device's clock the server's certificate is not valid.
    #[error(
        "the certificate of {server} is not valid at {now}, which is what this device's clock says: set \
         the clock; if it is right, the gateway needs a new server certificate"
    )]
    Clock {
        /// Where.
        server: Server,
        /// The clock.
        now: Timestamp,
        /// What TLS said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// By this device's clock the certificate that came is not valid.
    #[error(
        "the new certificate is valid from {not_before} to {not_after}, but this device's clock says \
         {now}: set the clock, then enrol again"
    )]
    CertificateClock {
        /// Start of the certificate's validity.
        not_before: Timestamp,
        /// Its end.
        not_after: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// The gateway's TLS does not take the certificate that is to be renewed: it has expired, is
    /// revoked, or is of a CA that is not trusted any more.
    #[error(
        "{server} does not accept this device's certificate ({detail}): it has to enrol again, with a \
         new token"
    )]
    CertificateRefused {
        /// Where.
        server: Server,
        /// What TLS said.
        detail: String,
    },
    /// 401 or 403 at a renewal: the registry does not have the device or has it turned off, or the
    /// certificate is not one that is renewed.
    #[error(
        "the gateway does not renew this device's certificate ({detail}): where the registry is the \
         reason, turn the device on there; otherwise enrol again, with a new token"
    )]
    RenewalRefused {
        /// What the server said.
        detail: String,
    },
    /// TLS failed for another reason.
    #[error("the connection to {server} failed")]
    Connection {
        /// Where.
        server: Server,
        /// What TLS or HTTP said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// 401: the token was used, has expired, or is not this device's.
    #[error(
        "the token is refused ({detail}): make a new one with `tidegate certs enroll-token`; it is good \
         once, for one device and a short time"
    )]
    TokenRefused {
        /// What the server said.
        detail: String,
    },
    /// 403: the registry does not have the device, or has it turned off.
    #[error("the gateway gives {device} no certificate ({detail}): register it there and turn it on")]
    NotRegistered {
        /// The device.
        device: DeviceId,
        /// What the server said.
        detail: String,
    },
    /// 202, 429 or 503: later.
    #[error("the gateway cannot answer now ({detail}): try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to try again, at the earliest.
        retry_after: Duration,
        /// What the server said.
        detail: String,
    },
    /// 404: another kind of server.
    #[error("{server} has no enrolment service (EST, RFC 7030): check host and port")]
    NoService {
        /// Where.
        server: Server,
    },
    /// Another refusal.
    #[error("the gateway refused with status {status} ({detail})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        detail: String,
    },
    /// The answer is not what EST says.
    #[error("the answer of {server} is not one of EST (RFC 7030)")]
    Answer {
        /// Where.
        server: Server,
        /// What is wrong with it.
        source: EstError,
    },
    /// The answer has another content type.
    #[error("the answer of {server} has the content type `{content_type}`, not application/pkcs7-mime")]
    ContentType {
        /// Where.
        server: Server,
        /// What it says.
        content_type: String,
    },
    /// No CA that the gateway offers has the fingerprint.
    #[error(
        "the gateway's CA does not have the fingerprint {pin}{}: compare it with the one shown on the \
         gateway; if that is the same, somebody is between the device and the gateway",
        shown.map(|shown| format!(", but {shown}")).unwrap_or_default()
    )]
    OtherFingerprint {
        /// What was asked for.
        pin: Fingerprint,
        /// The first one that was offered.
        shown: Option<Fingerprint>,
    },
    /// What should be a CA's certificate is none.
    #[error("the gateway offers a certificate as CA that is none")]
    NotAuthority,
    /// The device could not connect again: none of the offered CAs signed the server's certificate.
    #[error("none of the CAs that {server} offers has signed its own certificate; the known ones are kept")]
    AuthoritiesLockOut {
        /// Where.
        server: Server,
    },
    /// More CAs than a file of them may hold.
    #[error("the gateway offers {0} CAs; {MAX_CHAIN} are allowed")]
    TooManyAuthorities(usize),
    /// One of the certificates cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// No certificate in the answer is for the key of the request.
    #[error("the answer has no certificate for the key of this device")]
    OtherKey,
    /// The certificate is for somebody else.
    #[error("the new certificate is for {found}, not for the device {device}")]
    OtherIdentity {
        /// Who asked.
        device: DeviceId,
        /// Whom it names.
        found: String,
    },
    /// No CA that the device trusts has signed the certificate.
    #[error("the new certificate is not signed by a CA that this device trusts")]
    OtherAuthority,
    /// The runtime ended in the middle.
    #[error("stopped before the files were written")]
    Stopped(#[source] JoinError),
}

impl EnrollError {
    /// How long the gateway asks to wait, where it does.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
