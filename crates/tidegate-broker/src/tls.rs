//! Who is behind a TLS handshake, and for how long.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConnection;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::time::Timestamp;
use tidegate_pki::identity::{IdentityError, Leaf, leaf};

use crate::info::TlsInfo;

/// A proven identity with what bounds it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) principal: Arc<Principal>,
    /// `None` for anonymous connections.
    pub(crate) certificate: Option<Certificate>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsInfo>,
}

/// What is kept of a client's certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// Big-endian without leading zeros, as revocation lists name it.
    pub(crate) serial: Box<[u8]>,
    /// Time until it expires; zero when it has. TLS looks at the first handshake only, so a
    /// resumed session may bring an expired one.
    pub(crate) valid_for: Duration,
}

impl Identity {
    /// What somebody else knows of the connection.
    pub(crate) fn vouched(principal: Arc<Principal>) -> Self {
        Self {
            principal,
            certificate: None,
            tls: None,
        }
    }

    /// The identity in the verified client certificate, or anonymous where none was asked for.
    pub(crate) fn of(connection: &ServerConnection) -> Result<Self, IdentityError> {
        let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else {
            return Ok(Self {
                tls: Some(TlsInfo::of(connection, None)),
                ..Self::vouched(Arc::new(Principal::Anonymous))
            });
        };
        let Leaf {
            principal,
            serial,
            not_after,
        } = leaf(certificate)?;
        let valid_for = not_after.since(now());
        Ok(Self {
            principal: Arc::new(principal),
            certificate: Some(Certificate {
                serial: serial.into(),
                valid_for,
            }),
            tls: Some(TlsInfo::of(connection, Some(not_after))),
        })
    }
}

/// The system's clock, by which rustls too judges certificates.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}
