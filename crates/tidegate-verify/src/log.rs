//! What the replay guard needs from a database: one atomic, durable write.

use crate::guard::Admission;
use crate::state::DeviceState;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::time::Timestamp;

/// Durable memory of the replay guard.
///
/// A false "committed" lets an attacker replay after a crash, or loses an acknowledged reading; a
/// false "failed" only makes the device send again. So an implementation answers `Ok` only after
/// the disk has said that the data is there.
pub trait ReplayLog {
    /// Why a commit failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The state of every device that has one, and the clock floor.
    fn load(&mut self) -> Result<Loaded, Self::Error>;

    /// Writes all readings of `batch`, the newest state of each of their devices (the last in
    /// order) and the clock floor in one transaction, and returns once it is durable. On an error
    /// nothing is written.
    ///
    /// `floor` never falls between commits that succeed. Before the first message has confirmed
    /// the time it is the earliest [`Timestamp`].
    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), Self::Error>;
}

/// What was on disk at start.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// State by device.
    pub devices: Vec<(DeviceIndex, DeviceState)>,
    /// The latest time at which a message was accepted, if one ever was.
    pub floor: Option<Timestamp>,
}
