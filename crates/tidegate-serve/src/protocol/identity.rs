//! Who is known, who is connected, and what about that needs somebody: the part of the stream that
//! the page's Certificates view shows.
//!
//! The program fills these in (`Hub::set_certificates` and its neighbours); the hub cleans every
//! text, keeps bounded parts of long lists, and sends them on when they changed.

use serde::Serialize;
use std::sync::Arc;
use ts_rs::TS;

/// What a certificate entitles its holder to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum CertificateRole {
    /// Signs the other certificates.
    Authority,
    /// Being the broker.
    Server,
    /// Reads all telemetry.
    Gateway,
    /// Reads all telemetry, and writes commands.
    Operator,
    /// Publishes its own readings.
    Device,
}

impl CertificateRole {
    /// Every role, in the order of the enum.
    pub const ALL: [Self; 5] = [
        Self::Authority,
        Self::Server,
        Self::Gateway,
        Self::Operator,
        Self::Device,
    ];

    /// Its name for programs, as it is written in the stream.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Device => "device",
        }
    }
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum CertificateState {
    /// Past its end, and its holder has no newer one.
    Expired,
    /// In force, and close enough to its end that somebody should see to it.
    Expiring,
    /// In force.
    Valid,
    /// Refused everywhere.
    Revoked,
    /// In force, but its holder has a newer one.
    Superseded,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct CertificateRow {
    /// Its holder: a registered device, gateway or operator, or the name of the gateway's own certificate.
    pub id: String,
    /// What it entitles to.
    pub role: CertificateRole,
    /// Its serial number in lower-case hex.
    pub serial: String,
    /// The start of its validity.
    pub not_before_ms: i64,
    /// The end of its validity.
    pub not_after_ms: i64,
    /// How it stands.
    pub state: CertificateState,
    /// The CA that signed it: its name, or its key id in hex.
    pub authority: String,
}

/// Certificates by how they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, TS)]
pub struct CertificateCounts {
    /// In force, and not close to their end.
    pub valid: u32,
    /// In force, and close to their end.
    pub expiring: u32,
    /// Past their end.
    pub expired: u32,
    /// Refused everywhere.
    pub revoked: u32,
    /// Replaced by a newer one.
    pub superseded: u32,
}

/// The certificates: at most 1,000 of them, those first that matter most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, TS)]
pub struct CertificatesView {
    /// Expired and expiring ones, valid ones, then revoked and superseded ones; within each, the
    /// one that ends first comes first.
    pub rows: Vec<CertificateRow>,
    /// How many there are in all, those left out included.
    pub counts: CertificateCounts,
    /// How many are not in `rows`; `tidegate certs list` has them.
    pub left_out: u32,
}

/// How a session's link is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct SessionTls {
    /// The protocol's version, such as `TLS 1.3`.
    pub version: String,
    /// The cipher suite, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The key exchange, such as `X25519MLKEM768`; empty where it is not known.
    pub key_exchange: String,
    /// Whether the key exchange withstands a quantum computer: what is recorded today stays
    /// secret then.
    pub post_quantum: bool,
    /// Whether an earlier session was resumed, so that no certificate was exchanged again.
    pub resumed: bool,
}

/// One connected client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct SessionRow {
    /// Who it proved to be; null where nothing was proven.
    pub id: Option<String>,
    /// The role in its certificate; null where it has none.
    pub role: Option<CertificateRole>,
    /// The client id of its CONNECT, which anybody may choose.
    pub client_id: String,
    /// Its address and port.
    pub peer: String,
    /// When it connected.
    pub since_ms: i64,
    /// How the link is encrypted; null where it is not.
    pub tls: Option<SessionTls>,
}

/// The connected clients: at most 500 of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, TS)]
pub struct SessionsView {
    /// Those without a proven identity, then gateways, operators and devices; within each by id.
    pub rows: Vec<SessionRow>,
    /// How many are connected in all.
    pub total: u32,
    /// How many of all use a post-quantum key exchange.
    pub post_quantum: u32,
    /// How many of all are not encrypted.
    pub unencrypted: u32,
    /// How many are not in `rows`.
    pub left_out: u32,
}

/// One revocation list in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct RevocationList {
    /// The CA that signed it: its name, or its key id in hex.
    pub authority: String,
    /// Its crlNumber (RFC 5280 §5.2.3) in decimal: a later list has a higher one.
    pub number: String,
    /// When it was made.
    pub this_update_ms: i64,
    /// When the next one is due; after it, every client is refused.
    pub next_update_ms: i64,
    /// How many certificates it revokes.
    pub revoked: u32,
}

/// The revocation lists in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, TS)]
pub struct RevocationView {
    /// One per CA; empty where none is in use.
    pub lists: Vec<RevocationList>,
}

/// How soon somebody must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum AlarmSeverity {
    /// Something is out of order, or will be within hours.
    Critical,
    /// Something will be out of order if nobody acts.
    Warning,
    /// Good to know.
    Info,
}

impl AlarmSeverity {
    /// Every severity, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Warning, Self::Info];

    /// Its name for programs, as it is written in the stream.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something that needs somebody, until it does not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct Alarm {
    /// How soon somebody must act.
    pub severity: AlarmSeverity,
    /// What is out of order, as a sentence.
    pub text: String,
    /// What to do about it, as a sentence; empty where `text` says it.
    pub remedy: String,
    /// Since when.
    pub since_ms: i64,
}

/// All of it, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, TS)]
pub struct IdentityView {
    /// The certificates; null where the program keeps no account of them.
    #[ts(type = "CertificatesView | null")]
    pub certificates: Option<Arc<CertificatesView>>,
    /// The connected clients; null where another broker has them.
    #[ts(type = "SessionsView | null")]
    pub sessions: Option<Arc<SessionsView>>,
    /// The revocation lists; null where certificates are not checked.
    #[ts(type = "RevocationView | null")]
    pub revocation: Option<Arc<RevocationView>>,
    /// What needs somebody, the most urgent first, at most 20.
    #[ts(type = "Array<Alarm>")]
    pub alarms: Arc<Vec<Alarm>>,
}

/// What changed of it, each whole; null where nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, TS)]
pub struct IdentityChange {
    /// The certificates.
    #[ts(type = "CertificatesView | null")]
    pub certificates: Option<Arc<CertificatesView>>,
    /// The connected clients.
    #[ts(type = "SessionsView | null")]
    pub sessions: Option<Arc<SessionsView>>,
    /// The revocation lists.
    #[ts(type = "RevocationView | null")]
    pub revocation: Option<Arc<RevocationView>>,
    /// What needs somebody.
    #[ts(type = "Array<Alarm> | null")]
    pub alarms: Option<Arc<Vec<Alarm>>>,
}
