//! What is known of each connected session, for dashboards and lists.

use std::net::SocketAddr;
use std::sync::Arc;

use bytestring::ByteString;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::time::Timestamp;

/// A session that a client is connected to.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Who the connection has proven to be.
    pub principal: Arc<Principal>,
    /// Chosen by the client, or assigned by the broker.
    pub client_id: ByteString,
    /// Network address of the client.
    pub peer: SocketAddr,
    /// When the CONNECT came, by the system's clock.
    pub since: Timestamp,
    /// `None` on a connection without TLS.
    pub tls: Option<TlsInfo>,
}

/// What a TLS handshake came to. The names are those of the IANA registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// Such as `X25519MLKEM768` or `x25519`. `None` for a resumption in TLS 1.2, which exchanges no keys.
    pub key_exchange: Option<&'static str>,
    /// Whether an earlier session went on, instead of the client proving itself anew.
    pub resumed: bool,
    /// The end of the client certificate's validity; `None` where none was asked for.
    pub not_after: Option<Timestamp>,
}

impl TlsInfo {
    /// Reads a connection whose handshake is complete.
    pub(crate) fn of(connection: &ServerConnection, not_after: Option<Timestamp>) -> Self {
        Self {
            version: connection.protocol_version().map_or(UNNAMED, version_name),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or(UNNAMED, |suite| cipher_name(suite.suite())),
            key_exchange: connection
                .negotiated_key_exchange_group()
                .map(|group| group_name(group.name())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            not_after,
        }
    }

    /// Whether the key exchange holds against quantum computers: what is recorded today stays
    /// closed to them.
    #[must_use]
    pub fn is_post_quantum(&self) -> bool {
        self.key_exchange == Some(group_name(NamedGroup::X25519MLKEM768))
    }
}

/// For what a later rustls may negotiate before it is listed here.
const UNNAMED: &str = "other";

fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "1.2",
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => UNNAMED,
    }
}

fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(UNNAMED),
    }
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "x25519",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        other => other.as_str().unwrap_or(UNNAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_registries() {
        assert_eq!(
            cipher_name(CipherSuite::TLS13_AES_256_GCM_SHA384),
            "TLS_AES_256_GCM_SHA384"
        );
        assert_eq!(
            cipher_name(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
        );
        assert_eq!(group_name(NamedGroup::secp256r1), "secp256r1");
        assert_eq!(group_name(NamedGroup::X25519), "x25519");
        assert_eq!(cipher_name(CipherSuite::Unknown(0xfefe)), UNNAMED);
    }
}
