//! The guard's time: this machine's clock, which does not go back behind what was proven.
//!
//! The floor rises only with an accepted message, because that message's own timestamp agrees
//! with this machine's clock. If it rose with the clock alone, a clock that was once set ahead
//! would lock every device out until the world has caught up.
//!
//! What remains: when this machine's clock and a device's are ahead by the same span, one message
//! confirms a time that has not come. The floor is then on disk, and once both clocks are right
//! every message is `stale` and `clock_rollback` until that time has come. To lower the floor would
//! be to accept again what was accepted since, so only a person may do it, with a new database.

use crate::verdict::Notice;
use std::time::Duration;
use tidegate_envelope::time::Timestamp;

/// Clock corrections of this size are everyday, and no rollback.
const EVERYDAY_CORRECTION: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Hash)]
pub(super) struct Clock {
    /// When this process started, in terms of a clock that was corrected since.
    started: Timestamp,
    /// The latest time at which a message was accepted.
    floor: Timestamp,
    /// The same, as far as it is on disk.
    durable_floor: Timestamp,
    /// How far the clock is behind the floor, where that is no everyday correction.
    behind: Option<Duration>,
    /// Whether that has been said.
    said: bool,
}

impl Clock {
    pub(super) fn new(floor: Option<Timestamp>, started: Timestamp) -> Self {
        let floor = floor.unwrap_or(Timestamp::from_micros(i64::MIN));
        Self {
            started: started.max(floor),
            floor,
            durable_floor: floor,
            behind: None,
            said: false,
        }
    }

    /// What time it is, when the machine's clock shows `now`.
    pub(super) fn read(&mut self, now: Timestamp) -> Timestamp {
        let back = self.floor.since(now);
        self.behind = Some(back).filter(|back| *back > EVERYDAY_CORRECTION);
        if back.is_zero() {
            self.said = false;
        }
        let now = now.max(self.floor);
        // The clock was ahead at the start, and corrected before anything was accepted.
        self.started = self.started.min(now);
        now
    }

    /// A message agrees that it is `now`.
    pub(super) fn confirm(&mut self, now: Timestamp) {
        self.floor = self.floor.max(now);
    }

    pub(super) fn started(&self) -> Timestamp {
        self.started
    }

    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(super) fn is_rolled_back(&self) -> bool {
        self.behind.is_some()
    }

    /// The notice for the first accepted message after the clock has gone back.
    pub(super) fn rollback_notice(&mut self) -> Option<Notice> {
        let behind = self.behind.filter(|_| !self.said)?;
        self.said = true;
        let by_ms = u64::try_from(behind.as_millis()).unwrap_or(u64::MAX);
        Some(Notice::ClockRollback { by_ms })
    }

    /// What was confirmed is on disk.
    pub(super) fn commit(&mut self) {
        self.durable_floor = self.floor;
    }

    /// What was confirmed since the last commit was not, and its notices are lost.
    pub(super) fn undo(&mut self) {
        self.floor = self.durable_floor;
        self.said = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn clock_set_ahead_and_corrected_leaves_nothing_behind_unless_a_message_agreed() {
        let mut clock = Clock::new(Some(NOW), NOW);
        assert_eq!(clock.read(NOW.plus(HOUR)), NOW.plus(HOUR));
        assert_eq!(clock.read(NOW), NOW);
        assert!(!clock.is_rolled_back());
        clock.confirm(NOW.plus(HOUR));
        assert_eq!(clock.read(NOW), NOW.plus(HOUR));
        assert!(clock.is_rolled_back());
        clock.undo();
        assert_eq!((clock.read(NOW), clock.floor()), (NOW, NOW));
        clock.confirm(NOW.plus(HOUR));
        clock.commit();
        clock.undo();
        assert_eq!(clock.floor(), NOW.plus(HOUR));
    }

    #[test]
    fn rollback_is_said_once_until_the_clock_has_caught_up_or_the_commit_failed() {
        let mut clock = Clock::new(Some(NOW), NOW);
        let second = Duration::from_secs(1);
        clock.read(NOW.minus(second));
        assert_eq!(clock.rollback_notice(), None);
        let back = second + Duration::from_millis(1);
        let said = Some(Notice::ClockRollback { by_ms: 1_001 });
        clock.read(NOW.minus(back));
        assert_eq!(clock.rollback_notice(), said);
        clock.read(NOW.minus(back));
        assert_eq!(clock.rollback_notice(), None);
        clock.undo();
        assert_eq!(clock.rollback_notice(), said);
        clock.read(NOW);
        assert_eq!(clock.rollback_notice(), None);
        clock.read(NOW.minus(back));
        assert_eq!(clock.rollback_notice(), said);
    }

    #[test]
    fn start_follows_a_clock_that_was_ahead_but_not_behind_the_floor() {
        let mut fresh = Clock::new(None, NOW.plus(HOUR));
        fresh.read(NOW);
        assert_eq!(fresh.started(), NOW);
        fresh.read(NOW.plus(HOUR));
        assert_eq!(fresh.started(), NOW);
        let mut known = Clock::new(Some(NOW), NOW.minus(HOUR));
        known.read(NOW.minus(HOUR));
        assert_eq!(known.started(), NOW);
    }
}
