//! Each reason of checks 9 to 15 with an accepted message one step away, and a model of the whole.

use super::*;
use crate::delivery::{Delivery, SessionId};
use crate::stage::Unverified;
use crate::testing::{NOW, Said, device, key, topic, with_devices};
use crate::verifier::Verifier;
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;
use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::principal::Principal;

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

/// Verifier, guard and log of one device.
struct Gateway {
    registry: Arc<Registry>,
    verifier: Verifier,
    guard: ReplayGuard,
    log: MemoryLog,
    now: Timestamp,
    session: u64,
}

impl Gateway {
    fn new(configure: impl FnOnce(&mut crate::registry::Device)) -> Self {
        let mut only = device(1);
        let id = only.id.clone();
        only.keys = vec![(KeyEpoch(0), key(&id, 0)), (KeyEpoch(1), key(&id, 1))];
        configure(&mut only);
        let registry = Arc::new(with_devices(vec![only]));
        let verifier = Verifier::new(Arc::clone(&registry), Protection::Signed, 65_536);
        let guard = ReplayGuard::new(&registry, GuardPolicy::default(), Loaded::default(), NOW);
        Self {
            registry,
            verifier,
            guard,
            log: MemoryLog::default(),
            now: NOW,
            session: 1,
        }
    }

    /// kill -9 and start again.
    fn crash(&mut self) {
        let loaded = self.log.load().unwrap();
        self.guard = ReplayGuard::new(&self.registry, GuardPolicy::default(), loaded, self.now);
    }

    fn admit(&mut self, payload: &[u8]) -> Outcome {
        let topic = topic(1);
        let session = SessionId(self.session);
        let principal = &Principal::Broker;
        let delivery = Delivery {
            topic: &topic,
            payload,
            retained: false,
            principal,
            session,
        };
        let verified = self.verifier.verify(Unverified::new(delivery), self.now).unwrap();
        self.guard.admit(verified, self.now)
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
    gateway.guard.started = long_ago;
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
fn first_message_from_before_the_start_is_a_cold_start() {
    let mut gateway = Gateway::new(|_| {});
    let before = NOW.minus(6 * SECOND);
    assert_eq!(gateway.send(Said::at(1, before)), Err(vec![Reason::ColdStart]));
    assert_eq!(gateway.send(Said::at(1, NOW.minus(5 * SECOND))), accepted());
    // With state, the same time is fine.
    assert_eq!(gateway.send(boot(1, 2, before)), accepted());
}

#[test]
fn same_message_again_is_duplicate_once_then_replay() {
    let mut gateway = Gateway::new(|_| {});
    let said = boot(1, 7, NOW);
    assert_eq!(gateway.send(said), accepted());
    assert_eq!(gateway.send(said), Err(vec![Reason::Duplicate]));
    assert_eq!(gateway.send(said), Err(vec![Reason::Replay]));
}

#[test]
fn same_message_from_another_session_or_late_is_a_replay() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 7, NOW)), accepted());
    gateway.session = 2;
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    gateway.session = 1;
    gateway.wait(11 * SECOND);
    assert_eq!(gateway.send(boot(1, 7, NOW)), Err(vec![Reason::Replay]));
    gateway.wait(60 * SECOND);
    assert_eq!(
        gateway.send(boot(1, 7, NOW)),
        Err(vec![Reason::Stale, Reason::Replay])
    );
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
fn poisoned_sequence_is_refused_and_the_device_goes_on() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    assert_eq!(gateway.send(boot(1, 1 << 53, NOW)), Err(vec![Reason::SeqJump]));
    gateway.wait(2 * SECOND);
    assert_eq!(gateway.send(boot(1, 65_538, NOW)), Err(vec![Reason::SeqJump]));
    gateway.wait(2 * SECOND);
    assert_eq!(gateway.send(boot(1, 2, NOW)), accepted());
    gateway.wait(2 * SECOND);
    assert_eq!(
        gateway.send(boot(1, 65_538, NOW)),
        Ok(vec![Notice::Gap { missing: 65_535 }])
    );
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
fn clock_set_back_is_said_once_and_does_not_reopen_the_past() {
    let mut gateway = Gateway::new(|_| {});
    assert_eq!(gateway.send(boot(1, 1, NOW)), accepted());
    gateway.wait(100 * SECOND);
    assert_eq!(gateway.send(boot(1, 2, NOW.plus(100 * SECOND))), accepted());
    gateway.now = NOW;
    let said = gateway.send(boot(1, 3, NOW.plus(100 * SECOND)));
    assert_eq!(said, Ok(vec![Notice::ClockRollback { by_ms: 100_000 }]));
    assert_eq!(gateway.send(boot(1, 4, NOW)), Err(vec![Reason::Stale]));
    gateway.crash();
    assert_eq!(gateway.send(boot(1, 4, NOW)), Err(vec![Reason::Stale]));
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
fn clocks_ten_years_off_on_either_side_do_not_panic() {
    let years = Duration::from_secs(10 * 365 * 86_400);
    for said_at in [NOW.minus(years), NOW, NOW.plus(years)] {
        for now in [
            NOW.minus(years),
            NOW.plus(years),
            Timestamp::from_micros(i64::MAX),
            NOW,
        ] {
            let mut gateway = Gateway::new(|_| {});
            gateway.now = now;
            drop(gateway.send(Said::at(1, said_at)));
            drop(gateway.send(Said::at(2, said_at)));
        }
    }
}

/// What can happen to a gateway, in any order.
#[derive(Debug, Clone)]
enum Step {
    /// The device sends the next message, passing over some numbers.
    Send {
        skip: u64,
        boot: bool,
    },
    /// The device starts again and counts from the beginning.
    Restart,
    /// Somebody sends an earlier message again, through this session.
    Replay {
        which: prop::sample::Index,
        session: u64,
    },
    Wait {
        ms: u64,
    },
    ClockBack {
        ms: u64,
    },
    FailCommits(bool),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u64, any::<bool>()).prop_map(|(skip, boot)| Step::Send { skip, boot }),
        1 => Just(Step::Restart),
        6 => (any::<prop::sample::Index>(), 1..3_u64)
            .prop_map(|(which, session)| Step::Replay { which, session }),
        3 => (0..40_000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..60_000_u64).prop_map(|ms| Step::ClockBack { ms }),
        1 => any::<bool>().prop_map(Step::FailCommits),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_accepted_twice_or_late_whatever_happens(
        steps in prop::collection::vec(step(), 1..80),
        window in any::<bool>(),
    ) {
        let mut gateway = Gateway::new(|device| {
            device.window = if window { Window::SixtyFour } else { Window::None };
        });
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut accepted_from = Timestamp::from_micros(i64::MIN);
        let mut sequence = 0;
        for step in steps {
            let payload = match step {
                Step::Send { skip, boot } => {
                    sequence += 1 + skip;
                    let boot = boot.then_some(1);
                    let said = Said { boot, flow: sent.len() as f64, ..Said::at(sequence, gateway.now) };
                    sent.push(said.signed());
                    sent.last().cloned()
                }
                Step::Restart => { sequence = 0; None }
                Step::Replay { which, session } => {
                    gateway.session = session;
                    (!sent.is_empty()).then(|| which.get(&sent).clone())
                }
                Step::Wait { ms } => { gateway.wait(Duration::from_millis(ms)); None }
                Step::ClockBack { ms } => { gateway.now = gateway.now.minus(Duration::from_millis(ms)); None }
                Step::FailCommits(failing) => { gateway.log.failing = failing; None }
                Step::Crash => { gateway.crash(); None }
            };
            let Some(payload) = payload else { continue };
            if gateway.admit(&payload) == Outcome::Admitted
                && let Ok(fresh) = gateway.guard.commit(&mut gateway.log)
            {
                for admission in &fresh {
                    let timestamp = admission.get().message.reading.timestamp.unwrap();
                    accepted_from = accepted_from.max(gateway.now);
                    prop_assert!(timestamp >= accepted_from.minus(30 * SECOND));
                }
            }
            gateway.session = 1;
        }
        let distinct: HashSet<_> = gateway.log.accepted.iter().collect();
        prop_assert_eq!(distinct.len(), gateway.log.accepted.len());
    }
}
