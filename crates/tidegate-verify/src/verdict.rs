//! What became of a message.

use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::reason::Reason;

/// A refused message: why, and whose it claimed to be. Its reading is gone.
///
/// A refusal is not an error: it is counted, shown, logged and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first failing check: the name of the verdict.
    pub reason: Reason,
    /// Further checks that fail too; only ever filled when the MAC was valid.
    pub also: Vec<Reason>,
    /// The registered device of the topic, where there is one.
    pub device: Option<DeviceIndex>,
    /// What exactly was wrong: the offending value and the limit. Never a secret.
    pub detail: String,
}

impl Refusal {
    /// A refusal for one reason.
    #[must_use]
    pub fn new(reason: Reason, device: Option<DeviceIndex>, detail: impl Into<String>) -> Self {
        Self {
            reason,
            also: Vec::new(),
            device,
            detail: detail.into(),
        }
    }
}

/// Something worth showing about an accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// This many sequence numbers before it never arrived: lost, or suppressed by somebody.
    Gap {
        /// How many are missing.
        missing: u64,
    },
    /// A publisher without a boot counter started again at a lower sequence.
    PublisherRestart,
    /// This machine's clock was set back by so many milliseconds; the persisted floor was used.
    ClockRollback {
        /// How far it went back.
        by_ms: u64,
    },
}
