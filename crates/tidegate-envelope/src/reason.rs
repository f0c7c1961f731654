//! Why a message or a connection was refused: the name of the verdict, the metric label and the event.

use core::fmt;

/// The defence layer that a reason belongs to, in the order in which a message meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// TLS: the link is encrypted and the broker proven.
    Tls,
    /// Client certificates, and topics bound to them.
    Identity,
    /// Limits on size, rate, time to connect, and well-formed packets.
    Limits,
    /// The strict format of a message.
    Format,
    /// The HMAC signature.
    Signature,
    /// The timestamp window.
    Freshness,
    /// The sequence number.
    Sequence,
    /// The database: nothing is accepted that is not durable.
    Durability,
    /// Rules and the isolation forest.
    Detection,
    /// The web server's own doors.
    Dashboard,
}

macro_rules! reasons {
    ($($name:ident $text:literal $layer:ident $sentence:literal;)*) => {
        /// A reason by its wire name (VERIFY order for messages, then connections, then detection).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $sentence] $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The wire name, such as `bad_mac`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason for people, as a sentence without a full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// The layer that stopped it.
            #[must_use]
            pub const fn layer(self) -> Layer {
                match self { $(Self::$name => Layer::$layer,)* }
            }

            /// The reason with this wire name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    Oversize "oversize" Limits "The message is larger than allowed";
    RateLimited "rate_limited" Limits "The sender publishes faster than its quota";
    Retained "retained" Limits "A retained message on a telemetry topic could be old";
    TopicInvalid "topic_invalid" Identity "The topic is not a telemetry topic";
    UnknownDevice "unknown_device" Identity "No such device is registered";
    DeviceDisabled "device_disabled" Identity "The device is registered but disabled";
    IdentityMismatch "identity_mismatch" Identity "The sender is not the device that it speaks for";
    Malformed "malformed" Format "The message is not in the agreed format";
    UnknownKey "unknown_key" Signature "The message names a key that does not exist";
    KeyRetired "key_retired" Signature "The message is signed with a retired key";
    MissingMac "missing_mac" Signature "The message carries no signature";
    BadMac "bad_mac" Signature "The signature does not match the message";
    BadSchema "bad_schema" Format "A member is missing or has the wrong type";
    Duplicate "duplicate" Sequence "The broker delivered an accepted message again";
    Stale "stale" Freshness "The message is older than the time window";
    Future "future" Freshness "The message is from the future";
    ColdStart "cold_start" Freshness "The message is older than this gateway's start, and the device has no history here";
    Replay "replay" Sequence "The message was accepted before";
    SeqConflict "seq_conflict" Sequence "Another message with this sequence number was accepted: two senders share one key";
    OutOfOrder "out_of_order" Sequence "A later message was accepted already";
    SeqJump "seq_jump" Sequence "The sequence number is implausibly far ahead";
    StorageUnavailable "storage_unavailable" Durability "The message could not be made durable";

    TlsNoCertificate "tls_no_certificate" Identity "The client presented no certificate";
    TlsBadCertificate "tls_bad_certificate" Identity "The client's certificate is not one of ours";
    TlsExpired "tls_expired" Identity "The client's certificate has expired";
    TlsRevoked "tls_revoked" Identity "The client's certificate is revoked";
    TlsHandshake "tls_handshake" Tls "The TLS handshake failed";
    TlsServerRejected "tls_server_rejected" Tls "The client did not trust this broker's certificate";
    AclDenied "acl_denied" Identity "The identity may not use this topic";
    NotAuthorized "not_authorized" Identity "The client may not connect";
    SessionTakeover "session_takeover" Identity "Another connection took over the client id";
    SessionClosedRevoked "session_closed_revoked" Identity "A live session was closed because its certificate was revoked";
    ConnectTimeout "connect_timeout" Limits "The connection said nothing in time";
    ConnectionLimit "connection_limit" Limits "Too many connections";
    MqttMalformed "mqtt_malformed" Limits "The bytes are not MQTT";
    CrlRejected "crl_rejected" Identity "A new revocation list was refused, and the old one kept";
    RegistryRejected "registry_rejected" Identity "A changed device registry was refused, and the old one kept";
    CertificateRejected "certificate_rejected" Identity "A changed certificate, key or CA was refused, and the old one kept";
    CertificateExpiring "certificate_expiring" Identity "A certificate or revocation list ends soon";
    CertificateExpired "certificate_expired" Identity "A certificate or revocation list has ended";
    CertificateIssued "certificate_issued" Identity "A device was given a certificate";
    OriginDenied "origin_denied" Dashboard "A page of another origin asked for data";

    Anomaly "anomaly" Detection "The reading does not fit the device's normal behaviour";
    Gap "gap" Sequence "Messages before this one never arrived";
    PublisherRestart "publisher_restart" Sequence "The publisher started again and counts from the beginning";
    ClockRollback "clock_rollback" Freshness "The clock of this machine was set back";
    Silence "silence" Detection "The device has gone silent";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_name_leads_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_name("bad_mac "), None);
    }
}
