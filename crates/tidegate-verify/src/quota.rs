//! Quotas: messages per second of each device, with one second's worth as burst.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number per device, the time at which its
//! next message would be due if it kept exactly to its rate.

use crate::registry::Registry;
use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tidegate_envelope::id::DeviceIndex;
use tidegate_envelope::time::Timestamp;

/// Messages per second that all senders without a device may send together.
const STRANGERS_PER_S: u32 = 1_000;
const SECOND_US: i64 = 1_000_000;
/// How far a sender may run ahead of its rate.
const BURST: Duration = Duration::from_secs(1);
/// Connections read the clock each for itself, so `now` may step back by a little between two
/// calls. Only beyond this is it a clock that was set back.
const DISORDER: Duration = Duration::from_millis(100);

/// The quotas of all registered devices, and one for everybody else. Shared by all connections.
#[derive(Debug)]
pub struct Quotas {
    devices: Vec<Quota>,
    strangers: Quota,
}

#[derive(Debug)]
struct Quota {
    /// The newest reading of the clock, microseconds since 1970.
    seen: AtomicI64,
    /// Microseconds since 1970; at most [`BURST`] after `seen`.
    next_due: AtomicI64,
    /// Microseconds from one message to the next.
    interval: i64,
}

impl Quotas {
    /// Bytes of memory that a registered device takes here.
    pub const BYTES_PER_DEVICE: usize = size_of::<Quota>();

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

    /// The quotas for a registry that takes this one's place, with what has been used of them.
    #[must_use]
    pub fn with_registry(&self, registry: &Registry) -> Self {
        let next = Self::new(registry);
        for (next, quota) in next.devices.iter().zip(&self.devices) {
            next.take_over(quota);
        }
        next.strangers.take_over(&self.strangers);
        next
    }

    /// Has the processor fetch the quota of a device that the registry holds.
    pub(crate) fn fetch(&self, device: DeviceIndex) {
        black_box(self.devices[device.0 as usize].seen.load(Ordering::Relaxed));
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
            seen: AtomicI64::new(i64::MIN),
            next_due: AtomicI64::new(i64::MIN),
            interval: SECOND_US / i64::from(per_s.max(1)),
        }
    }

    fn take_over(&self, earlier: &Self) {
        let copy =
            |to: &AtomicI64, from: &AtomicI64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.seen, &earlier.seen);
        copy(&self.next_due, &earlier.next_due);
    }

    fn admit(&self, now: Timestamp) -> bool {
        let now = self.read_clock(now);
        let latest = now.plus(BURST);
        let step = |next_due: i64| {
            let due = next_due.max(now.as_micros()).saturating_add(self.interval);
            (due <= latest.as_micros()).then_some(due)
        };
        self.next_due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .is_ok()
    }

    /// The newest reading of the clock. One that was set back starts the quota anew, or it would
    /// lock the sender out until it has caught up.
    fn read_clock(&self, now: Timestamp) -> Timestamp {
        let is_late = |seen: Timestamp| seen > now && seen.since(now) <= DISORDER;
        let step = |seen| (!is_late(Timestamp::from_micros(seen))).then_some(now.as_micros());
        match self.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(before) if before > now.as_micros() => {
                self.next_due.fetch_min(now.as_micros(), Ordering::Relaxed);
                now
            }
            Ok(_) => now,
            Err(newest) => Timestamp::from_micros(newest),
        }
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
        for back_ms in [1, 10, 100] {
            assert!(
                !quotas.admit(slow, NOW.minus(Duration::from_millis(back_ms))),
                "{back_ms}"
            );
        }
        assert!(quotas.admit(slow, NOW.minus(Duration::from_millis(101))));
    }

    #[test]
    fn device_takes_24_bytes() {
        assert_eq!(Quotas::BYTES_PER_DEVICE, 24);
    }

    #[test]
    fn next_quotas_go_on_where_these_are_for_strangers_too() {
        let quotas = Quotas::new(&with_devices(vec![device(1)]));
        let used_up = |quotas: &Quotas, device| (0..2_000).filter(|_| quotas.admit(device, NOW)).count();
        assert_eq!(used_up(&quotas, Some(DeviceIndex(0))), 1_000);
        assert_eq!(used_up(&quotas, None), 1_000);
        let next = quotas.with_registry(&with_devices(vec![device(1), device(2)]));
        assert_eq!(used_up(&next, Some(DeviceIndex(0))), 0);
        assert_eq!(used_up(&next, None), 0);
        assert_eq!(used_up(&next, Some(DeviceIndex(1))), 1_000);
        // The clock goes on from where it was, too: a little earlier is no clock that was set back.
        assert!(!next.admit(None, NOW.minus(DISORDER)));
    }

    #[test]
    fn strangers_share_one_quota() {
        let quotas = Quotas::new(&with_devices(vec![device(1)]));
        let beyond = [None, Some(DeviceIndex(7))];
        let taken = (0..2 * STRANGERS_PER_S as usize)
            .filter(|i| quotas.admit(beyond[i % 2], NOW))
            .count();
        assert_eq!(taken, STRANGERS_PER_S as usize);
        assert!(quotas.admit(Some(DeviceIndex(0)), NOW));
    }

    #[test]
    fn clock_set_back_by_any_span_does_not_lock_a_device_out() {
        let first = Some(DeviceIndex(0));
        for ms in [
            1,
            100,
            101,
            999,
            1_000,
            1_001,
            1_050,
            1_100,
            1_101,
            315_360_000_000,
        ] {
            let quotas = Quotas::new(&with_devices(vec![device(1)]));
            assert!(quotas.admit(first, NOW));
            assert!(quotas.admit(first, NOW.minus(Duration::from_millis(ms))), "{ms}");
        }
        let quotas = Quotas::new(&with_devices(vec![device(1)]));
        for now in [i64::MAX, i64::MIN, 0].map(Timestamp::from_micros) {
            assert!(quotas.admit(first, now) || now.as_micros() == i64::MAX);
        }
    }
}
