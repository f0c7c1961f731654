//! The one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_envelope::time::Timestamp;

/// The time now; 1970 on a machine whose clock is before it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
