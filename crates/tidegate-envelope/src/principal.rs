//! Who is at the other end of a connection, as far as it has been proven.

use crate::id::DeviceId;

/// What a certificate entitles its holder to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishes its own readings, and reads its own commands.
    Device,
    /// Reads all telemetry.
    Gateway,
    /// Reads all telemetry, and writes commands.
    Operator,
}

/// The proven identity of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nothing was proven: levels `plain` and `tls`.
    Anonymous,
    /// A client certificate of our CA, not expired and not revoked.
    Certificate {
        /// The identity in its SAN URI `urn:tidegate:<role>:<id>`.
        id: DeviceId,
        /// The role in the same URI.
        role: Role,
    },
    /// Another broker delivered the message; its access control is what ties certificate to topic.
    Broker,
}
