//! Why a connection ends, and what follows from it.

use std::time::Duration;

use rmqtt_codec::v5::DisconnectReasonCode;
use tidegate_envelope::reason::Reason;

use crate::session::Order;
use crate::wire::WireError;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// DISCONNECT came.
    Left { with_will: bool },
    /// The socket was closed or broke.
    Lost,
    /// The client broke the protocol or a limit.
    Broken {
        code: DisconnectReasonCode,
        reason: Reason,
        detail: String,
    },
    /// Nothing was heard for longer than the client promised.
    Silent,
    /// The client did not read what was written.
    Stalled,
    /// The client was too slow for the messages of QoS 1 and 2 that it asked for.
    Slow,
    /// The client's certificate expired while it was connected.
    Expired,
    /// A publish could not be made durable, and MQTT 3.1.1 has no way to say so.
    Unavailable,
    /// Somebody else ended it.
    Ordered(Order),
}

impl End {
    pub(crate) fn protocol(code: DisconnectReasonCode, detail: impl Into<String>) -> Self {
        Self::Broken {
            code,
            reason: Reason::MqttMalformed,
            detail: detail.into(),
        }
    }

    /// The reason code of the DISCONNECT, for clients that still listen.
    pub(crate) fn code(&self) -> Option<DisconnectReasonCode> {
        match self {
            Self::Left { .. } | Self::Lost | Self::Stalled | Self::Unavailable => None,
            Self::Broken { code, .. } => Some(*code),
            Self::Silent => Some(DisconnectReasonCode::KeepAliveTimeout),
            Self::Slow => Some(DisconnectReasonCode::QuotaExceeded),
            Self::Expired => Some(DisconnectReasonCode::NotAuthorized),
            Self::Ordered(Order::TakeOver) => Some(DisconnectReasonCode::SessionTakenOver),
            Self::Ordered(Order::Close {
                reason: Reason::SessionClosedRevoked,
                ..
            }) => Some(DisconnectReasonCode::NotAuthorized),
            Self::Ordered(Order::Close { .. }) => Some(DisconnectReasonCode::AdministrativeAction),
            Self::Ordered(Order::ShutDown) => Some(DisconnectReasonCode::ServerShuttingDown),
        }
    }

    /// Whether the will is published (MQTT 5 §3.1.2.5). One that is shut out says nothing more,
    /// and a broker that stops publishes nothing more.
    pub(crate) fn publishes_will(&self) -> bool {
        !matches!(
            self,
            Self::Left { with_will: false }
                | Self::Expired
                | Self::Ordered(Order::Close { .. } | Order::ShutDown)
        )
    }

    /// Whether the client lost its right to be here, and must be gone at once.
    pub(crate) fn shuts_out(&self) -> bool {
        matches!(self, Self::Expired | Self::Ordered(Order::Close { .. }))
    }

    /// How long the session lives on that was to live for `asked`.
    pub(crate) fn session_expiry(&self, asked: Duration) -> Duration {
        match self {
            Self::Ordered(Order::Close {
                keep_session: false, ..
            }) => Duration::ZERO,
            _ => asked,
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        let reason = match error {
            WireError::TooLong { .. } => Reason::Oversize,
            _ => Reason::MqttMalformed,
        };
        Self::Broken {
            code: error.code(),
            reason,
            detail: error.to_string(),
        }
    }
}
