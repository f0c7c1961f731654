//! Each reason of checks 9 to 15 with an accepted message one step away.

mod adopting;
mod clocks;
mod first;
mod model;
mod redelivery;
mod table;

use super::*;
use crate::delivery::{Delivery, SessionId};
use crate::stage::Unverified;
use crate::testing::{NOW, Said, device, key, topic, with_devices};
use crate::verifier::Verifier;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::principal::{Principal, Role};

/// A log in memory that can be told to fail, and outlives the guard.
#[derive(Debug, Default)]
struct MemoryLog {
    loaded: Loaded,
    accepted: Vec<Identity>,
    failing: bool,
}

/// Sequence and MAC of an accepted message.
type Identity = (u64, [u8; 32]);

#[derive(Debug, thiserror::Error)]
#[error("disk full")]
struct DiskFull;

impl ReplayLog for MemoryLog {
    type Error = DiskFull;

    fn load(&mut self) -> Result<Loaded, DiskFull> {
        Ok(self.loaded.clone())
    }

    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), DiskFull> {
        if self.failing {
            return Err(DiskFull);
        }
        assert!(
            self.loaded.floor.is_none_or(|before| before <= floor),
            "the floor fell"
        );
        for admission in batch {
            let message = &admission.message;
            self.accepted
                .push((message.reading.sequence.unwrap().get(), message.tag.0));
            let index = message.device.unwrap();
            self.loaded.devices.retain(|(other, _)| *other != index);
            let state = DeviceState::from_bytes(&admission.state.as_ref().unwrap().to_bytes()).unwrap();
            self.loaded.devices.push((index, state));
        }
        self.loaded.floor = Some(floor);
        Ok(())
    }
}

/// Verifier, guard and log of two devices.
struct Gateway {
    registry: Arc<Registry>,
    verifier: Verifier,
    guard: ReplayGuard,
    log: MemoryLog,
    now: Timestamp,
    session: u64,
    /// Whether that session was resumed.
    resumed: bool,
    /// Whose topic messages are sent to.
    device: u32,
}

impl Gateway {
    fn new(configure: impl Fn(&mut crate::registry::Device)) -> Self {
        let two = [1, 2].map(|number| {
            let mut device = device(number);
            device.keys = [0, 1]
                .map(|epoch| (KeyEpoch(epoch), key(&device.id, epoch)))
                .into();
            configure(&mut device);
            device
        });
        let registry = Arc::new(with_devices(two.into()));
        let verifier = Verifier::new(Arc::clone(&registry), Protection::Signed, 65_536);
        let guard = ReplayGuard::new(&registry, GuardPolicy::default(), Loaded::default(), NOW);
        Self {
            registry,
            verifier,
            guard,
            log: MemoryLog::default(),
            now: NOW,
            session: 1,
            resumed: false,
            device: 1,
        }
    }

    /// kill -9 and start again.
    fn crash(&mut self) {
        let loaded = self.log.load().unwrap();
        self.guard = ReplayGuard::new(&self.registry, GuardPolicy::default(), loaded, self.now);
    }

    fn admit(&mut self, payload: &[u8]) -> Outcome {
        let topic = topic(self.device);
        let session = SessionId(self.session);
        let principal = &Principal::Broker;
        let delivery = Delivery {
            topic: &topic,
            payload,
            retained: false,
            principal,
            session,
            resumed: self.resumed,
            detached: None,
        };
        match self.verifier.verify(Unverified::new(delivery), self.now) {
            Ok(verified) => self.guard.admit(verified, self.now),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Admits and commits; the reasons when it is refused.
    fn send(&mut self, said: Said) -> Result<Vec<Notice>, Vec<Reason>> {
        match self.admit(&said.signed()) {
            Outcome::Admitted => {
                let fresh = self
                    .guard
                    .commit(&mut self.log)
                    .map_err(|_| vec![Reason::StorageUnavailable])?;
                Ok(fresh.last().unwrap().get().notices.clone())
            }
            Outcome::Duplicate => Err(vec![Reason::Duplicate]),
            Outcome::Refused(refusal) => Err([vec![refusal.reason], refusal.also].concat()),
        }
    }

    /// The guard as it is at this moment, in every detail.
    fn snapshot(&self) -> String {
        let mut guard = self.guard.clone();
        // Looking at the clock is no message's doing.
        guard.clock.read(self.now);
        format!("{guard:?}")
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn accepted() -> Result<Vec<Notice>, Vec<Reason>> {
    Ok(vec![])
}

fn boot(boot: u32, sequence: u64, timestamp: Timestamp) -> Said {
    Said {
        boot: Some(boot),
        ..Said::at(sequence, timestamp)
    }
}

#[test]
fn time_window_ends_at_30_s_before_and_5_s_after_now() {
    let mut gateway = Gateway::new(|_| {});
    let long_ago = NOW.minus(100 * SECOND);
    gateway.guard.clock = Clock::new(None, long_ago);
    assert_eq!(
        gateway.send(Said::at(1, NOW.minus(31 * SECOND))),
        Err(vec![Reason::Stale])
    );
    assert_eq!(gateway.send(Said::at(1, NOW.minus(30 * SECOND))), accepted());
    assert_eq!(gateway.send(Said::at(2, NOW.plus(5 * SECOND))), accepted());
    let late = NOW.plus(5 * SECOND + Duration::from_micros(1));
    assert_eq!(gateway.send(Said::at(3, late)), Err(vec![Reason::Future]));
}

#[test]
fn other_message_with_a_used_sequence_is_a_conflict_and_an_unseen_one_out_of_order() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    assert_eq!(
        gateway.send(boot(1, 9, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
    let clone = Said {
        flow: 1.0,
        ..boot(1, 9, NOW)
    };
    assert_eq!(gateway.send(clone), Err(vec![Reason::SeqConflict]));
    assert_eq!(gateway.send(boot(1, 8, NOW)), Err(vec![Reason::OutOfOrder]));
    assert_eq!(gateway.send(boot(1, 6, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(boot(1, 10, NOW)), accepted());
}

#[test]
fn window_of_64_takes_each_late_message_once() {
    let mut gateway = Gateway::new(|device| device.window = Window::SixtyFour);
    assert_eq!(gateway.send(boot(1, 100, NOW)), accepted());
    assert_eq!(
        gateway.send(boot(1, 102, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
    assert_eq!(gateway.send(boot(1, 101, NOW)), accepted());
    gateway.session = 2;
    assert_eq!(gateway.send(boot(1, 101, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(boot(1, 39, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 38, NOW)), Err(vec![Reason::Replay]));
}

#[test]
fn publisher_without_boot_counter_may_start_again_but_its_past_is_closed() {
    let mut gateway = Gateway::new(|_| {});
    let later = NOW.plus(SECOND);
    assert_eq!(gateway.send(Said::at(500, NOW)), accepted());
    assert_eq!(gateway.send(Said::at(1, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(
        gateway.send(Said::at(1, later)),
        Ok(vec![Notice::PublisherRestart])
    );
    // Numbers above the new mark, from before the restart, stay refused.
    gateway.session = 2;
    assert_eq!(gateway.send(Said::at(500, NOW)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(Said::at(2, later.plus(SECOND))), accepted());
}

#[test]
fn strict_device_and_device_with_boot_counter_may_not_start_again() {
    let later = NOW.plus(SECOND);
    let mut strict = Gateway::new(|device| device.strict_sequence = true);
    assert_eq!(strict.send(Said::at(500, NOW)), accepted());
    assert_eq!(strict.send(Said::at(1, later)), Err(vec![Reason::Replay]));
    let mut counting = Gateway::new(|_| {});
    assert_eq!(counting.send(boot(1, 500, NOW)), accepted());
    assert_eq!(counting.send(Said::at(1, later)), Err(vec![Reason::Replay]));
    assert_eq!(counting.send(boot(2, 400, later)), Err(vec![Reason::Replay]));
    assert_eq!(counting.send(boot(2, 1_025, later)), accepted());
    // An earlier start above the mark: a copy of the device with an old state.
    assert_eq!(
        counting.send(boot(1, 1_026, later)),
        Err(vec![Reason::SeqConflict])
    );
}

#[test]
fn first_message_under_a_new_key_retires_the_old_one() {
    let mut gateway = Gateway::new(|_| {});
    let later = NOW.plus(SECOND);
    assert_eq!(gateway.send(boot(1, 500, NOW)), accepted());
    assert_eq!(
        gateway.send(Said {
            epoch: Some(1),
            ..boot(1, 1, later)
        }),
        accepted()
    );
    assert_eq!(gateway.send(boot(1, 501, later)), Err(vec![Reason::KeyRetired]));
    assert_eq!(
        gateway.send(Said {
            epoch: Some(1),
            ..boot(1, 2, later)
        }),
        accepted()
    );
}

#[test]
fn failed_commit_accepts_nothing_and_leaves_the_guard_as_it_was() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.log.failing = true;
    assert_eq!(gateway.admit(&boot(1, 2, NOW).signed()), Outcome::Admitted);
    assert_eq!(
        gateway.send(boot(1, 3, NOW)),
        Err(vec![Reason::StorageUnavailable])
    );
    gateway.log.failing = false;
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 3, NOW)), accepted());
    assert_eq!(gateway.log.accepted.len(), 3);
}

#[test]
fn publisher_that_was_late_in_its_batch_is_rolled_back_to_what_is_durable() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(Said::at(1, NOW)), accepted());
    let before = (
        gateway.guard.devices[0].state.clone(),
        gateway.guard.clock.floor(),
    );
    gateway.log.failing = true;
    gateway.wait(SECOND);
    for (sequence, ms) in [(2, 1), (3, 2), (1, 3), (900, 4)] {
        let said = Said::at(sequence, NOW.plus(Duration::from_millis(ms)));
        assert_eq!(gateway.admit(&said.signed()), Outcome::Admitted);
    }
    let failed = gateway.guard.commit(&mut gateway.log).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "4 messages could not be made durable: disk full"
    );
    assert_eq!(
        (
            gateway.guard.devices[0].state.clone(),
            gateway.guard.clock.floor()
        ),
        before
    );
}

#[test]
fn batch_has_a_limit_beyond_which_messages_are_unavailable() {
    let mut gateway = Gateway::new(|device| device.quota_per_s = u32::MAX);
    for sequence in 1..=MAX_BATCH as u64 {
        assert_eq!(gateway.admit(&boot(1, sequence, NOW).signed()), Outcome::Admitted);
    }
    let next = boot(1, MAX_BATCH as u64 + 1, NOW);
    assert_eq!(gateway.send(next), Err(vec![Reason::StorageUnavailable]));
    assert_eq!(gateway.guard.commit(&mut gateway.log).unwrap().len(), MAX_BATCH);
    assert_eq!(gateway.send(next), accepted());
}

#[test]
fn late_message_of_an_earlier_start_does_not_take_the_counter_back() {
    let mut gateway = Gateway::new(|device| device.window = Window::SixtyFour);
    assert_eq!(gateway.send(boot(1, 1_023, NOW)), accepted());
    assert_eq!(gateway.send(boot(2, 1_025, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 1_024, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 1_026, NOW)), Err(vec![Reason::SeqConflict]));
    assert_eq!(
        gateway.send(boot(2, 1_027, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
}

#[test]
fn start_excuses_the_rest_of_its_block_and_no_more() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    assert_eq!(gateway.send(boot(2, 1_026, NOW)), accepted());
    assert_eq!(
        gateway.send(boot(3, 2_052, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
    assert_eq!(gateway.send(boot(5, 4_101, NOW)), accepted());
    assert_eq!(
        gateway.send(boot(5, 4_103, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
}

#[test]
fn device_that_begins_to_count_its_starts_may_have_left_one_block_unused() {
    for (sequence, notices) in [(1_026, vec![]), (1_027, vec![Notice::Gap { missing: 1 }])] {
        let mut gateway = Gateway::new(|_| ());
        let uncounted = Said {
            boot: None,
            ..boot(1, 1, NOW)
        };
        assert_eq!(gateway.send(uncounted), accepted());
        assert_eq!(gateway.send(boot(1, sequence, NOW)), Ok(notices));
    }
}

#[test]
fn starts_are_counted_anew_under_a_new_key_where_numbers_go_on() {
    let mut gateway = Gateway::new(|_| ());
    assert_eq!(gateway.send(boot(5, 100, NOW)), accepted());
    for sequence in [101, 102] {
        let under_the_new_key = Said {
            epoch: Some(1),
            ..boot(1, sequence, NOW)
        };
        assert_eq!(gateway.send(under_the_new_key), accepted());
    }
}

#[test]
fn new_key_excuses_a_new_beginning_but_neither_a_jump_nor_an_older_time() {
    let renewed = |boot_count, sequence, timestamp| Said {
        epoch: Some(1),
        ..boot(boot_count, sequence, timestamp)
    };
    let later = NOW.plus(SECOND);
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(7, 500, NOW)), accepted());
    assert_eq!(
        gateway.send(renewed(1, 1 << 53, later)),
        Err(vec![Reason::SeqJump])
    );
    assert_eq!(gateway.send(renewed(1, 5, NOW)), Err(vec![Reason::Replay]));
    // Nothing of that has retired the old key.
    assert_eq!(gateway.send(boot(7, 501, NOW)), accepted());
    assert_eq!(gateway.send(renewed(1, 5, later)), accepted());
    assert_eq!(gateway.send(renewed(1, 6, later)), accepted());
    // A device that has counted its starts stays strict.
    let without = Said {
        boot: None,
        ..renewed(1, 1, later.plus(SECOND))
    };
    assert_eq!(gateway.send(without), Err(vec![Reason::Replay]));
    // A rotation without a new beginning is an ordinary message; what was before it is closed.
    let mut rotating = Gateway::new(|_| {});
    assert_eq!(rotating.send(boot(7, 500, NOW)), accepted());
    assert_eq!(
        rotating.send(renewed(7, 502, NOW)),
        Ok(vec![Notice::Gap { missing: 1 }])
    );
    assert_eq!(
        rotating.send(boot(7, 500, NOW)),
        Err(vec![Reason::KeyRetired, Reason::Replay])
    );
    rotating.wait(60 * SECOND);
    let reasons = vec![Reason::KeyRetired, Reason::Stale, Reason::OutOfOrder];
    assert_eq!(rotating.send(boot(7, 501, NOW)), Err(reasons));
}

#[test]
fn device_that_counted_its_starts_is_strict_under_a_new_key_that_does_not_count() {
    let renewed = |sequence, seconds: u32| Said {
        epoch: Some(1),
        ..Said::at(sequence, NOW.plus(seconds * SECOND))
    };
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(7, 500, NOW)), accepted());
    assert_eq!(gateway.send(renewed(5, 1)), accepted());
    assert_eq!(gateway.send(renewed(1, 2)), Err(vec![Reason::Replay]));
    assert_eq!(gateway.send(renewed(6, 2)), accepted());
}

#[test]
fn window_of_a_new_beginning_knows_nothing_of_the_numbers_before_it() {
    let mut gateway = Gateway::new(|device| device.window = Window::SixtyFour);
    for sequence in 498..=500 {
        assert_eq!(gateway.send(Said::at(sequence, NOW)), accepted());
    }
    let later = |seconds: u32| NOW.plus(seconds * SECOND);
    assert_eq!(
        gateway.send(Said::at(5, later(2))),
        Ok(vec![Notice::PublisherRestart])
    );
    assert_eq!(gateway.send(Said::at(4, later(1))), accepted());
    gateway.session = 2;
    assert_eq!(gateway.send(Said::at(4, later(1))), Err(vec![Reason::Replay]));
}

#[test]
fn failed_commit_does_not_retire_a_key() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.log.failing = true;
    let renewed = Said {
        epoch: Some(1),
        ..boot(1, 2, NOW)
    };
    assert_eq!(gateway.send(renewed), Err(vec![Reason::StorageUnavailable]));
    gateway.log.failing = false;
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
}

#[test]
fn registered_device_takes_192_bytes() {
    assert_eq!(ReplayGuard::BYTES_PER_DEVICE, 192);
}

#[test]
fn window_ends_63_below_the_mark_also_after_a_step_of_its_whole_width() {
    for step in [63, 64] {
        let mut gateway = Gateway::new(|device| device.window = Window::SixtyFour);
        assert_eq!(gateway.send(boot(1, 100, NOW)), accepted());
        let missing = step - 1;
        let mark = 100 + step;
        assert_eq!(
            gateway.send(boot(1, mark, NOW)),
            Ok(vec![Notice::Gap { missing }])
        );
        let other = Said {
            flow: 1.0,
            ..boot(1, 100, NOW)
        };
        assert_eq!(gateway.send(other), Err(vec![Reason::SeqConflict]));
        assert_eq!(gateway.send(boot(1, mark - 62, NOW)), accepted());
        if step == 64 {
            assert_eq!(gateway.send(boot(1, mark - 63, NOW)), accepted());
        }
    }
}

#[test]
fn refusal_says_how_old_how_far_ahead_which_key_or_which_sequence() {
    let mut gateway = Gateway::new(|_| {});
    gateway.guard.clock = Clock::new(None, NOW.minus(50 * SECOND));
    let detail = |gateway: &mut Gateway, said: Said| match gateway.admit(&said.signed()) {
        Outcome::Refused(refusal) => {
            assert_eq!(refusal.device, Some(DeviceIndex(0)));
            refusal.detail
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        detail(&mut gateway, boot(1, 1, NOW.minus(40 * SECOND))),
        "40.0 s old"
    );
    let ahead = boot(1, 1, NOW.plus(Duration::from_millis(7_500)));
    assert_eq!(detail(&mut gateway, ahead), "7.5 s ahead");
    gateway.guard.clock = Clock::new(None, NOW);
    assert_eq!(
        detail(&mut gateway, boot(1, 1, NOW.minus(8 * SECOND))),
        "8.0 s old"
    );
    let renewed = Said {
        epoch: Some(1),
        ..boot(1, 5, NOW)
    };
    assert_eq!(gateway.send(renewed), accepted());
    assert_eq!(
        detail(&mut gateway, boot(1, 6, NOW)),
        "key epoch 0; a newer one is in use"
    );
    let below = Said {
        sequence: 4,
        ..renewed
    };
    assert_eq!(detail(&mut gateway, below), "sequence 4");
}

#[test]
fn message_that_no_verifier_would_pass_is_refused_and_does_not_panic() {
    let mut gateway = Gateway::new(|_| {});
    let topic = topic(1);
    let payload = boot(1, 1, NOW).signed();
    let delivery = Delivery {
        topic: &topic,
        payload: &payload,
        retained: false,
        principal: &Principal::Broker,
        session: SessionId(1),
        resumed: false,
        detached: None,
    };
    let verified = gateway.verifier.verify(Unverified::new(delivery), NOW).unwrap();
    let mut reason = |change: fn(&mut Message)| {
        let mut message = verified.get().clone();
        change(&mut message);
        match gateway.guard.admit(Verified::attest(message), NOW) {
            Outcome::Refused(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason(|message| message.device = None), Reason::BadSchema);
    assert_eq!(
        reason(|message| message.reading.sequence = None),
        Reason::BadSchema
    );
    assert_eq!(
        reason(|message| message.reading.timestamp = None),
        Reason::BadSchema
    );
    assert_eq!(
        reason(|message| message.device = Some(DeviceIndex(2))),
        Reason::UnknownDevice
    );
    assert_eq!(gateway.guard.admit(verified, NOW), Outcome::Admitted);
}

#[test]
fn guards_are_alike_exactly_when_they_decide_alike() {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let alike = |a: &ReplayGuard, b: &ReplayGuard| {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        hasher.hash_one(a) == hasher.hash_one(b)
    };
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.guard.state(DeviceIndex(0)), None);
    let mut before = gateway.guard.clone();
    assert!(alike(&gateway.guard, &before));
    // Admitted, committed, clock and copies: each makes a difference.
    assert_eq!(gateway.admit(&boot(1, 7, NOW).signed()), Outcome::Admitted);
    assert!(!alike(&gateway.guard, &before));
    before = gateway.guard.clone();
    assert!(alike(&gateway.guard, &before));
    gateway.guard.commit(&mut gateway.log).unwrap();
    assert!(!alike(&gateway.guard, &before));
    before = gateway.guard.clone();
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Duplicate]));
    assert!(!alike(&gateway.guard, &before));
    before = gateway.guard.clone();
    gateway.guard.clock.confirm(NOW.plus(SECOND));
    assert!(!alike(&gateway.guard, &before));
    let state = gateway.guard.state(DeviceIndex(0)).unwrap();
    assert_eq!((state.mark().get(), state.newest()), (7, NOW));
    assert_eq!(gateway.guard.state(DeviceIndex(2)), None);
}

#[test]
fn fetching_decides_about_nothing_whatever_is_fetched() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    let before = gateway.snapshot();
    gateway.guard.fetch([0, 1, 2, u32::MAX].map(DeviceIndex));
    let topics: Vec<_> = (0..200).map(topic).collect();
    gateway
        .verifier
        .fetch(topics.iter().map(String::as_str).chain(["", "nowhere"]));
    assert_eq!(gateway.snapshot(), before);
    assert_eq!(gateway.send(boot(1, 8, NOW)), accepted());
}
