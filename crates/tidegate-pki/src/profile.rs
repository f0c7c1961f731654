//! What a certificate is for, and how long it is valid.

use rustls_pki_types::{DnsName, ServerName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tidegate_envelope::id::DeviceId;
pub use tidegate_envelope::principal::Role;
use tidegate_envelope::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of the CA.
pub const CA_LIFE: Duration = Duration::from_secs(3_652 * DAY.as_secs());
/// Life of every other certificate, where nothing else is asked for.
pub const LEAF_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());
/// A certificate is valid from this long before it is made, so that a device whose clock is
/// behind can use it at once.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Most names and addresses that one server certificate carries beside `localhost`.
pub const MAX_SERVER_NAMES: usize = 64;

/// Who the holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The broker: proves itself to clients by the names and addresses under which they reach it.
    Server {
        /// DNS names, `localhost` included.
        names: Vec<DnsName<'static>>,
        /// Addresses, those of loopback included.
        addresses: Vec<IpAddr>,
    },
    /// A client: SAN URI `urn:tidegate:<role>:<id>`, and the id once more as CN for brokers that
    /// read only that.
    Client {
        /// What it may do.
        role: Role,
        /// Its name.
        id: DeviceId,
    },
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From [`BACKDATE`] before issuing until this long after it.
    Lasting(Duration),
    /// Between two times, in the past too: an expired certificate for tests.
    Between(Timestamp, Timestamp),
}

impl Validity {
    /// Start and end for a certificate that is issued `now`.
    #[must_use]
    pub fn bounds(self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Lasting(life) => (now.minus(BACKDATE), now.plus(life)),
            Self::Between(not_before, not_after) => (not_before, not_after),
        }
    }
}

/// Everything that a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Who the holder is.
    pub subject: Subject,
    /// When it is valid; [`LEAF_LIFE`] from issuing by default.
    pub validity: Validity,
}

/// A name under which no client could reach a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Neither a DNS name nor an address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
    /// More names than [`MAX_SERVER_NAMES`].
    #[error("{0} server names are too many; {MAX_SERVER_NAMES} are allowed")]
    TooManyNames(usize),
}

impl Profile {
    /// A server that clients reach as `localhost`, `127.0.0.1`, `::1` and `extra_names`.
    ///
    /// Addresses become IP entries: rustls refuses an address that is written as a DNS name.
    pub fn server(extra_names: &[impl AsRef<str>]) -> Result<Self, ProfileError> {
        if extra_names.len() > MAX_SERVER_NAMES {
            return Err(ProfileError::TooManyNames(extra_names.len()));
        }
        let localhost = DnsName::try_from("localhost").expect("`localhost` is a DNS name");
        let mut names = vec![localhost];
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for extra in extra_names.iter().map(AsRef::as_ref) {
            match ServerName::try_from(extra) {
                Ok(ServerName::DnsName(name)) => push_new(&mut names, name.to_owned()),
                Ok(ServerName::IpAddress(address)) => push_new(&mut addresses, address.into()),
                _ => return Err(ProfileError::ServerName(extra.escape_default().to_string())),
            }
        }
        Ok(Self::of(Subject::Server { names, addresses }))
    }

    /// A client with `role`.
    #[must_use]
    pub fn client(role: Role, id: DeviceId) -> Self {
        Self::of(Subject::Client { role, id })
    }

    /// A device: publishes its own readings.
    #[must_use]
    pub fn device(id: DeviceId) -> Self {
        Self::client(Role::Device, id)
    }

    /// A gateway: reads all telemetry.
    #[must_use]
    pub fn gateway(id: DeviceId) -> Self {
        Self::client(Role::Gateway, id)
    }

    /// An operator: reads all telemetry and writes commands.
    #[must_use]
    pub fn operator(id: DeviceId) -> Self {
        Self::client(Role::Operator, id)
    }

    /// The same, valid from issuing for `life`.
    #[must_use]
    pub fn lasting(self, life: Duration) -> Self {
        Self {
            validity: Validity::Lasting(life),
            ..self
        }
    }

    /// The same, valid from `not_before` to `not_after`, in the past too.
    #[must_use]
    pub fn between(self, not_before: Timestamp, not_after: Timestamp) -> Self {
        Self {
            validity: Validity::Between(not_before, not_after),
            ..self
        }
    }

    fn of(subject: Subject) -> Self {
        Self {
            subject,
            validity: Validity::Lasting(LEAF_LIFE),
        }
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_become_addresses_and_duplicates_vanish() {
        let profile = Profile::server(&["broker.example", "192.0.2.7", "127.0.0.1", "localhost"]).unwrap();
        let Subject::Server { names, addresses } = profile.subject else {
            panic!("not a server")
        };
        let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
        assert_eq!(names, ["localhost", "broker.example"]);
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "::1", "192.0.2.7"]);
    }

    #[test]
    fn server_name_that_is_none_is_refused() {
        for bad in ["", "a b", "*.example", "http://broker", "192.0.2.300"] {
            assert!(Profile::server(&[bad]).is_err(), "{bad:?}");
        }
    }
}
