//! The levels of protection, each the one before it and one more layer.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much protection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// MQTT without any protection
    Plain,
    /// The link is encrypted, and the broker proven by a CA
    Tls,
    /// Clients prove themselves too; topics are bound to certificates
    Mtls,
    /// Every message is signed, fresh and new
    Signed,
    /// The same, with monitoring
    Dashboard,
    /// Rules and an isolation forest look at what the readings say
    #[default]
    Ai,
}

impl Level {
    /// Every level, from none to all.
    pub(crate) const ALL: [Self; 6] = [
        Self::Plain,
        Self::Tls,
        Self::Mtls,
        Self::Signed,
        Self::Dashboard,
        Self::Ai,
    ];

    /// Whether connections are encrypted.
    pub(crate) fn has_tls(self) -> bool {
        self >= Self::Tls
    }

    /// Whether clients need a certificate.
    pub(crate) fn has_client_certificates(self) -> bool {
        self >= Self::Mtls
    }

    /// Whether messages need a signature, and are checked for freshness and replay.
    pub(crate) fn has_signatures(self) -> bool {
        self >= Self::Signed
    }

    /// Whether rules and the forest look at accepted readings.
    pub(crate) fn has_detection(self) -> bool {
        self >= Self::Ai
    }

    /// The name used on the command line and in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
            Self::Signed => "signed",
            Self::Dashboard => "dashboard",
            Self::Ai => "ai",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
