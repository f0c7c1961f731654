//! The lines of the ledger: JSON objects with a member `event`, times in RFC 3339.

use super::LedgerError;
use crate::authority::RevocationReason;
use crate::identity;
use crate::inspect::{CertificateInfo, Usage};
use serde::{Deserialize, Serialize};
use std::fmt;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;

/// Longest serial number (RFC 5280 §4.1.2.2), in hex digits.
const MAX_SERIAL_DIGITS: usize = 40;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its serial number in lower-case hex without leading zero bytes.
    pub serial: String,
    /// Its holder; for a server, the name of its file.
    #[serde(with = "name")]
    pub id: DeviceId,
    /// What it entitles to.
    pub role: CertificateRole,
    /// Start of its validity.
    #[serde(with = "time")]
    pub not_before: Timestamp,
    /// End of its validity.
    #[serde(with = "time")]
    pub not_after: Timestamp,
    /// The CA that signed it: its key id in lower-case hex.
    pub authority: String,
    /// How its holder got it.
    pub how: How,
    /// When it was recorded.
    #[serde(with = "time")]
    pub at: Timestamp,
}

impl Record {
    /// The record of a certificate. `name` is used where the certificate carries no identity, which
    /// is the case for servers; `None` for a certificate that is neither server's nor client's.
    #[must_use]
    pub fn of(
        info: &CertificateInfo,
        name: &DeviceId,
        authority: &CertificateInfo,
        how: How,
        at: Timestamp,
    ) -> Option<Self> {
        let role = match (info.role, info.usage) {
            (Some(role), Usage::Client) => role.into(),
            (None, Usage::Server) => CertificateRole::Server,
            _ => return None,
        };
        Some(Self {
            serial: info.serial.clone(),
            id: info.identity.clone().unwrap_or_else(|| name.clone()),
            role,
            not_before: info.not_before,
            not_after: info.not_after,
            authority: hex::encode(&authority.key_id),
            how,
            at,
        })
    }
}

/// What a certificate entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateRole {
    /// Being the broker.
    Server,
    /// See [`Role::Device`].
    Device,
    /// See [`Role::Gateway`].
    Gateway,
    /// See [`Role::Operator`].
    Operator,
}

impl From<Role> for CertificateRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Device => Self::Device,
            Role::Gateway => Self::Gateway,
            Role::Operator => Self::Operator,
        }
    }
}

impl fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Device => identity::role_name(Role::Device),
            Self::Gateway => identity::role_name(Role::Gateway),
            Self::Operator => identity::role_name(Role::Operator),
        })
    }
}

/// How the holder of a certificate got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Made by hand, key included.
    Issued,
    /// With an enrolment token.
    Enrolled,
    /// By the certificate before it.
    Renewed,
    /// It was there before the ledger.
    Adopted,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    Certificate(Record),
    Revoked {
        serial: String,
        #[serde(with = "time")]
        at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<RevocationReason>,
    },
    List {
        authority: String,
        number: u64,
        #[serde(with = "time")]
        at: Timestamp,
    },
}

/// A serial number as the ledger writes it: OpenSSL writes upper case, some tools colons.
pub(super) fn canonical_serial(serial: &str) -> Result<String, LedgerError> {
    let refused = || LedgerError::Serial {
        serial: serial
            .chars()
            .take(MAX_SERIAL_DIGITS)
            .flat_map(char::escape_default)
            .collect(),
    };
    let digits: String = serial
        .chars()
        .filter(|digit| *digit != ':')
        .take(2 * MAX_SERIAL_DIGITS)
        .collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused());
    }
    let whole = if digits.len().is_multiple_of(2) {
        digits
    } else {
        format!("0{digits}")
    };
    let mut serial = whole.to_ascii_lowercase();
    while serial.len() > 2 && serial.starts_with("00") {
        serial.drain(..2);
    }
    if serial.len() > MAX_SERIAL_DIGITS {
        return Err(refused());
    }
    Ok(serial)
}

mod time {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tidegate_envelope::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a time in RFC 3339"))
    }
}

mod name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tidegate_envelope::id::DeviceId;

    pub(super) fn serialize<S: Serializer>(name: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
        let text = String::deserialize(deserializer)?;
        DeviceId::new(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_is_taken_as_openssl_and_others_write_it_and_junk_is_not() {
        for written in ["0A1B", "0a1b", "a1b", "0A:1B", "00:0A:1b", "00000a1b"] {
            assert_eq!(canonical_serial(written).unwrap(), "0a1b", "{written}");
        }
        assert_eq!(canonical_serial("0").unwrap(), "00");
        assert_eq!(canonical_serial(&"f".repeat(40)).unwrap().len(), 40);
        for junk in [
            "",
            ":",
            "0x1b",
            "device-001",
            "é",
            &"f".repeat(41),
            &"f".repeat(10_000),
        ] {
            assert!(canonical_serial(junk).is_err(), "{junk}");
        }
    }
}
