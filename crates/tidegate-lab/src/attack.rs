//! The attacks by name.

mod hostile_payload;
mod impersonate;
mod inject;
mod no_certificate;
mod replay;

use crate::client::{Answer, ClientError};
use crate::target::Target;
use std::fmt;
use tidegate_envelope::reason::Reason;

/// One kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// A forged reading of 250 PSI without the device's key.
    Inject,
    /// A genuine message, captured and sent again.
    Replay,
    /// A stolen certificate speaks for another device.
    Impersonate,
    /// A client without a certificate connects.
    NoCertificate,
    /// A payload of 60,000 nested lists.
    HostilePayload,
}

/// What came of an attack, as far as the attacker can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The message was taken.
    GotIn,
    /// It was refused, or the connection was.
    Stopped,
}

impl Attack {
    /// Every attack.
    pub const ALL: [Self; 5] = [
        Self::Inject,
        Self::Replay,
        Self::Impersonate,
        Self::NoCertificate,
        Self::HostilePayload,
    ];

    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Replay => "replay",
            Self::Impersonate => "impersonate",
            Self::NoCertificate => "no-certificate",
            Self::HostilePayload => "hostile-payload",
        }
    }

    /// The MQTT client id that it uses.
    #[must_use]
    pub const fn client_id(self) -> &'static str {
        match self {
            Self::Inject => "attacker-inject",
            Self::Replay => "attacker-replay",
            Self::Impersonate => "attacker-impersonate",
            Self::NoCertificate => "attacker-stranger",
            Self::HostilePayload => "attacker-hostile",
        }
    }

    /// The attack that uses this client id.
    #[must_use]
    pub fn by_client_id(client_id: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|attack| attack.client_id() == client_id)
    }

    /// The reason by which it is stopped where every layer is on.
    #[must_use]
    pub const fn stopped_by(self) -> Reason {
        match self {
            Self::Inject => Reason::BadMac,
            Self::Replay => Reason::Replay,
            Self::Impersonate => Reason::AclDenied,
            Self::NoCertificate => Reason::TlsNoCertificate,
            Self::HostilePayload => Reason::Malformed,
        }
    }

    /// Carries it out against `target`, using what was stolen from the device `victim`.
    pub async fn run(self, target: &Target, victim: &str, other: &str) -> Result<Outcome, ClientError> {
        match self {
            Self::Inject => inject::run(target, victim).await,
            Self::Replay => replay::run(target, victim).await,
            Self::Impersonate => impersonate::run(target, victim, other).await,
            Self::NoCertificate => no_certificate::run(target, victim).await,
            Self::HostilePayload => hostile_payload::run(target, victim).await,
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Taken => Self::GotIn,
            Answer::Refused(_) => Self::Stopped,
        }
    }
}

/// A refused or closed connection stops an attack; anything else means it was not carried out.
fn stopped_if_closed(error: ClientError) -> Result<Outcome, ClientError> {
    match error {
        ClientError::Closed(_) => Ok(Outcome::Stopped),
        other => Err(other),
    }
}
