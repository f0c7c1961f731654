//! A registry that changes while messages come in.

use super::*;
use crate::registry::Device;

/// The devices as [`Gateway::new`] makes them, changed.
pub(super) fn registry_of(count: u32, configure: impl Fn(&mut Device)) -> Arc<Registry> {
    let devices = (1..=count).map(|number| {
        let mut device = device(number);
        device.keys = [0, 1]
            .map(|epoch| (KeyEpoch(epoch), key(&device.id, epoch)))
            .into();
        configure(&mut device);
        device
    });
    Arc::new(with_devices(devices.collect()))
}

impl Gateway {
    pub(super) fn change(&mut self, registry: Arc<Registry>) {
        let loaded = self.log.load().unwrap();
        self.guard.adopt(&registry, loaded).unwrap();
        self.verifier = self.verifier.with_registry(Arc::clone(&registry)).unwrap();
        self.registry = registry;
    }
}

#[test]
fn states_and_what_waits_for_a_commit_outlive_a_change_of_the_registry() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    assert_eq!(gateway.admit(&boot(1, 8, NOW).signed()), Outcome::Admitted);
    gateway.change(registry_of(2, |_| {}));
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Duplicate]));
    assert_eq!(gateway.send(boot(1, 6, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(boot(1, 9, NOW)), accepted());
    assert_eq!(gateway.log.accepted.len(), 3);
}

#[test]
fn commit_that_fails_after_a_change_takes_back_what_was_admitted_before_it() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    assert_eq!(gateway.admit(&boot(1, 8, NOW).signed()), Outcome::Admitted);
    gateway.change(registry_of(3, |_| {}));
    gateway.log.failing = true;
    assert!(gateway.guard.commit(&mut gateway.log).is_err());
    gateway.log.failing = false;
    assert_eq!(gateway.send(boot(1, 8, NOW)), accepted());
}

#[test]
fn strictness_window_quota_keys_and_enabled_follow_the_registry_at_once() {
    let mut gateway = Gateway::new(|_| {});
    let later = |seconds: u32| NOW.plus(seconds * SECOND);
    assert_eq!(gateway.send(Said::at(70_000, NOW)), accepted());
    assert_eq!(gateway.send(Said::at(70_001, NOW)), accepted());
    gateway.change(registry_of(2, |device| device.strict_sequence = true));
    assert_eq!(gateway.send(Said::at(1, later(1))), Err(vec![Reason::Replay]));
    gateway.change(registry_of(2, |_| {}));
    let restart = Ok(vec![Notice::PublisherRestart]);
    assert_eq!(gateway.send(Said::at(50, later(1))), restart);

    let late = Said {
        boot: Some(1),
        ..Said::at(49, later(2))
    };
    assert_eq!(gateway.send(late), Err(vec![Reason::Replay]));
    gateway.change(registry_of(2, |device| device.window = Window::SixtyFour));
    assert_eq!(gateway.send(late), accepted());

    gateway.wait(200 * SECOND);
    let far = boot(1, 50 + 70_000, gateway.now);
    gateway.change(registry_of(2, |device| device.quota_per_s = 1));
    assert_eq!(gateway.send(far), Err(vec![Reason::SeqJump]));
    gateway.change(registry_of(2, |_| {}));
    gateway.wait(SECOND);
    assert_eq!(gateway.send(far), Ok(vec![Notice::Gap { missing: 69_999 }]));

    let next = boot(1, 50 + 70_001, gateway.now);
    gateway.change(registry_of(2, |device| device.enabled = false));
    assert_eq!(gateway.send(next), Err(vec![Reason::DeviceDisabled]));
    gateway.change(registry_of(2, |device| drop(device.keys.remove(0))));
    assert_eq!(gateway.send(next), Err(vec![Reason::BadMac]));
    gateway.change(registry_of(2, |_| {}));
    assert_eq!(gateway.send(next), accepted());
}

#[test]
fn device_may_change_its_format_and_stays_protected_by_its_state() {
    use tidegate_envelope::cose_v1::TagLength;
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    gateway.change(registry_of(2, |device| {
        device.format = crate::registry::Format::CoseV1 {
            channels: Arc::new(["flow_rate".into()]),
        };
    }));
    assert_eq!(gateway.send(boot(1, 8, NOW)), Err(vec![Reason::Malformed]));
    let mut outcome = |sequence| match gateway.admit(&boot(1, sequence, NOW).cose(TagLength::Full)) {
        Outcome::Refused(refusal) => Some(refusal.reason),
        other => {
            assert_eq!(other, Outcome::Admitted);
            None
        }
    };
    assert_eq!(outcome(7), Some(Reason::SeqConflict));
    assert_eq!(outcome(8), None);
}

#[test]
fn appended_device_starts_with_the_state_that_the_log_has_of_it_and_others_keep_theirs() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    // Another run of the program has accepted these; memory is ahead of nothing on disk.
    let mut other = Gateway::new(|_| {});
    assert_eq!(other.send(boot(1, 9, NOW)), accepted());
    let (_, state) = other.log.loaded.devices[0].clone();
    gateway.log.loaded.devices = vec![(DeviceIndex(2), state.clone()), (DeviceIndex(0), state)];
    gateway.change(registry_of(4, |_| {}));

    assert_eq!(gateway.send(boot(1, 8, NOW)), accepted());
    gateway.device = 3;
    let third = |sequence| Said {
        device: 3,
        ..boot(1, sequence, NOW)
    };
    assert_eq!(gateway.send(third(8)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(third(10)), accepted());
    gateway.device = 4;
    let fourth = Said {
        device: 4,
        ..third(1)
    };
    assert_eq!(gateway.send(fourth), accepted());
}

#[test]
fn registry_without_a_device_or_in_another_order_is_refused_and_nothing_changes() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    let swapped = Arc::new(with_devices(vec![device(2), device(1)]));
    for refused in [registry_of(1, |_| {}), swapped] {
        let before = gateway.snapshot();
        assert!(gateway.guard.adopt(&refused, Loaded::default()).is_err());
        assert!(gateway.verifier.with_registry(Arc::clone(&refused)).is_err());
        assert_eq!(gateway.snapshot(), before);
    }
    assert_eq!(gateway.send(boot(1, 8, NOW)), accepted());
}

#[test]
fn second_change_is_compared_with_the_first_and_not_with_the_start() {
    let mut gateway = Gateway::new(|_| {});
    gateway.change(registry_of(3, |_| {}));
    let refused = gateway.guard.adopt(&registry_of(2, |_| {}), Loaded::default());
    assert_eq!(refused.unwrap_err().device, device(3).id);
}

#[test]
fn quota_that_is_used_up_stays_so_through_a_change_and_follows_its_new_rate() {
    let mut gateway = Gateway::new(|device| device.quota_per_s = 2);
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
    let limited = Err(vec![Reason::RateLimited]);
    assert_eq!(gateway.send(boot(1, 3, NOW)), limited);
    gateway.change(registry_of(3, |device| device.quota_per_s = 2));
    assert_eq!(gateway.send(boot(1, 3, NOW)), limited);
    gateway.wait(Duration::from_millis(250));
    assert_eq!(gateway.send(boot(1, 3, NOW)), limited);
    gateway.change(registry_of(3, |device| device.quota_per_s = 4));
    assert_eq!(gateway.send(boot(1, 3, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 4, NOW)), limited);
}
