//! Quotas: messages per second of each device, with one second's worth as burst.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number per device, the time at which its
//! next message would be due if it kept exactly to its rate.

use crate::registry::Registry;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::time::Timestamp;

/// Messages per second that all senders without a device may send together.
const STRANGERS_PER_S: u32 = 1_000;
/// How far a sender may run ahead of its rate.
const BURST: Duration = Duration::from_secs(1);
/// Connections read the clock each for itself, so `now` may step back by a little between two
/// calls. Only beyond this is it a clock that was set back.
const DISORDER: Duration = Duration::from_secs(1);

/// The quotas of all registered devices, and one for everybody else. Shared by all connections.
#[derive(Debug)]
pub struct Quotas {
    devices: Vec<Quota>,
    strangers: Quota,
}

#[derive(Debug)]
struct Quota {
    /// Microseconds since 1970.
    next_due: AtomicI64,
    interval: Duration,
}

impl Quotas {
    /// Full quotas for every device.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let devices = registry
            .devices()
            .iter()
            .map(|device| Quota::new(device.quota_per_s))
            .collect();
        Self {
            devices,
            strangers: Quota::new(STRANGERS_PER_S),
        }
    }

    /// Takes one message out of the quota; false when it is used up.
    ///
    /// A false no drops a reading that the device was entitled to; a false yes lets a flood use
    /// what others need.
    pub fn admit(&self, device: Option<DeviceIndex>, now: Timestamp) -> bool {
        let quota = device.and_then(|index| self.devices.get(index.0 as usize));
        quota.unwrap_or(&self.strangers).admit(now)
    }
}

impl Quota {
    fn new(per_s: u32) -> Self {
        Self {
            next_due: AtomicI64::new(i64::MIN),
            interval: Duration::from_secs(1) / per_s.max(1),
        }
    }

    fn admit(&self, now: Timestamp) -> bool {
        let latest = now.plus(BURST);
        let step = |next_due: i64| {
            let due = Timestamp::from_micros(next_due).max(now).plus(self.interval);
            (due <= latest).then_some(due.as_micros())
        };
        // A clock that was set back must not lock a device out until it has caught up.
        let set_back = latest.plus(DISORDER).as_micros();
        let repair = |next_due: i64| if next_due > set_back { now.as_micros() } else { next_due };
        let update = |next_due| step(repair(next_due));
        self.next_due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, device, with_devices};

    #[test]
    fn device_over_its_quota_is_refused_and_others_are_not() {
        let mut slow = device(1);
        slow.quota_per_s = 10;
        let quotas = Quotas::new(&with_devices(vec![slow, device(2)]));
        let (slow, other) = (Some(DeviceIndex(0)), Some(DeviceIndex(1)));
        let taken = (0..100).filter(|_| quotas.admit(slow, NOW)).count();
        assert_eq!(taken, 10);
        assert!(quotas.admit(other, NOW));
        assert!(!quotas.admit(slow, NOW.plus(Duration::from_millis(99))));
        assert!(quotas.admit(slow, NOW.plus(Duration::from_millis(100))));
        assert!(!quotas.admit(slow, NOW.plus(Duration::from_millis(100))));
    }

    #[test]
    fn used_up_quota_stays_used_up_for_a_connection_whose_clock_reading_is_a_little_older() {
        let mut slow = device(1);
        slow.quota_per_s = 10;
        let quotas = Quotas::new(&with_devices(vec![slow]));
        let slow = Some(DeviceIndex(0));
        assert_eq!((0..100).filter(|_| quotas.admit(slow, NOW)).count(), 10);
        for back_ms in [1, 100, 1_000] {
            assert!(!quotas.admit(slow, NOW.minus(Duration::from_millis(back_ms))), "{back_ms}");
        }
        assert!(quotas.admit(slow, NOW.minus(Duration::from_millis(1_001))));
    }

    #[test]
    fn strangers_share_one_quota() {
        let quotas = Quotas::new(&with_devices(vec![device(1)]));
        let beyond = [None, Some(DeviceIndex(7))];
        let taken = (0..2 * STRANGERS_PER_S as usize).filter(|i| quotas.admit(beyond[i % 2], NOW)).count();
        assert_eq!(taken, STRANGERS_PER_S as usize);
        assert!(quotas.admit(Some(DeviceIndex(0)), NOW));
    }

    #[test]
    fn clock_set_back_ten_years_does_not_lock_a_device_out() {
        let quotas = Quotas::new(&with_devices(vec![device(1)]));
        let first = Some(DeviceIndex(0));
        assert!(quotas.admit(first, NOW));
        assert!(quotas.admit(first, NOW.minus(Duration::from_secs(10 * 365 * 86_400))));
    }
}
