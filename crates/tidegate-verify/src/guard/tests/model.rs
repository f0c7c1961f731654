//! A model of devices, an attacker, a disk and clocks, in any order: nothing is accepted twice or
//! late, a failed commit leaves nothing behind, and nobody is locked out.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::HashSet;
use tidegate_envelope::cose_v1::TagLength;

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    /// A device makes its next message, passing over some numbers; it is delivered, or held back.
    Make {
        device: usize,
        skip: u64,
        held: bool,
    },
    /// A device starts again.
    Start {
        device: usize,
    },
    /// A device is enrolled again under a new key; wiped, it counts from the beginning.
    Enrol {
        device: usize,
        wiped: bool,
    },
    /// A device sends one wrong number, far ahead. It does so once.
    Poison {
        device: usize,
    },
    /// Somebody delivers any message that was ever made, through this session.
    Deliver {
        which: prop::sample::Index,
        session: u64,
        resumed: bool,
    },
    /// The registry changes, and more than the window may.
    Change {
        window: bool,
    },
    Commit,
    FailCommits(bool),
    Wait {
        ms: u64,
    },
    /// The gateway's clock shows this much more or less than the devices' clocks.
    ClockOff {
        ms: i64,
    },
    Crash,
    LoseState,
}

/// How the world of one run is.
#[derive(Debug, Clone, Copy)]
struct World {
    window: bool,
    counts_boots: bool,
    /// Messages are cose-v1, where every start is counted.
    cose: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..2_usize;
    prop_oneof![
        8 => (device.clone(), 0..3_u64, prop::bool::weighted(0.2))
            .prop_map(|(device, skip, held)| Step::Make { device, skip, held }),
        1 => device.clone().prop_map(|device| Step::Start { device }),
        1 => (device.clone(), any::<bool>()).prop_map(|(device, wiped)| Step::Enrol { device, wiped }),
        1 => device.prop_map(|device| Step::Poison { device }),
        8 => (any::<prop::sample::Index>(), 1..3_u64, any::<bool>())
            .prop_map(|(which, session, resumed)| Step::Deliver { which, session, resumed }),
        1 => any::<bool>().prop_map(|window| Step::Change { window }),
        4 => Just(Step::Commit),
        1 => any::<bool>().prop_map(Step::FailCommits),
        3 => (0..20_000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => prop_oneof![Just(0), -60_000..60_000_i64, Just(315_360_000_000), Just(-315_360_000_000)]
            .prop_map(|ms| Step::ClockOff { ms }),
        1 => Just(Step::Crash),
        1 => Just(Step::LoseState),
    ]
}

fn world() -> impl Strategy<Value = World> {
    any::<(bool, bool, bool)>().prop_map(|(window, counts_boots, cose)| World {
        window,
        counts_boots: counts_boots || cose,
        cose,
    })
}

/// A device as it is, with its key and counters.
#[derive(Debug, Clone, Copy, Default)]
struct Publisher {
    sequence: u64,
    boot: u32,
    epoch: u16,
    has_poisoned: bool,
}

struct Model {
    world: World,
    gateway: Gateway,
    publishers: [Publisher; 2],
    /// Every message that was ever made, and by which device.
    made: Vec<(u32, Vec<u8>)>,
    /// The devices' clocks are right.
    time: Timestamp,
    off_ms: i64,
    /// The gateway's time at the newest acceptance.
    accepted_at: Timestamp,
    accepted: HashSet<Identity>,
}

impl Model {
    fn new(world: World) -> Self {
        Self {
            world,
            gateway: Gateway::new(|device| world.configure(device)),
            publishers: Default::default(),
            made: Vec::new(),
            time: NOW,
            off_ms: 0,
            accepted_at: Timestamp::from_micros(i64::MIN),
            accepted: HashSet::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Make { device, skip, held } => {
                self.make(device, skip);
                if !held {
                    self.deliver(self.made.len() - 1, 1, false);
                }
            }
            Step::Poison { device } => {
                if !std::mem::replace(&mut self.publishers[device].has_poisoned, true) {
                    let before = self.publishers[device].sequence;
                    self.make(device, 1 << 40);
                    self.publishers[device].sequence = before;
                    self.deliver(self.made.len() - 1, 1, false);
                }
            }
            Step::Start { device } => self.publishers[device].start(self.world),
            Step::Enrol { device, wiped } => {
                let publisher = &mut self.publishers[device];
                if wiped && publisher.epoch == 0 {
                    (publisher.sequence, publisher.boot) = (0, 0);
                }
                publisher.epoch = 1;
            }
            Step::Deliver {
                which,
                session,
                resumed,
            } => {
                if !self.made.is_empty() {
                    self.deliver(which.index(self.made.len()), session, resumed);
                }
            }
            Step::Change { window } => {
                self.world.window = window;
                let world = self.world;
                let count = self.gateway.registry.devices().len() as u32 + 1;
                self.gateway
                    .change(adopting::registry_of(count, |device| world.configure(device)));
            }
            Step::Commit => self.commit(),
            Step::FailCommits(failing) => self.gateway.log.failing = failing,
            Step::Wait { ms } => self.time = self.time.plus(Duration::from_millis(ms)),
            Step::ClockOff { ms } => self.off_ms = ms,
            Step::Crash => self.crash(),
            Step::LoseState => {
                self.gateway.log.loaded = Loaded::default();
                self.accepted_at = Timestamp::from_micros(i64::MIN);
                // Nothing that was accepted is younger than the next start less the skew.
                self.time = self.time.plus(6 * SECOND);
                self.crash();
            }
        }
        self.set_clock();
    }

    fn set_clock(&mut self) {
        self.gateway.now = Timestamp::from_micros(self.time.as_micros() + self.off_ms * 1_000);
    }

    fn crash(&mut self) {
        self.set_clock();
        self.gateway.crash();
    }

    fn make(&mut self, device: usize, skip: u64) {
        let publisher = &mut self.publishers[device];
        publisher.sequence += 1 + skip;
        let number = device as u32 + 1;
        let said = Said {
            device: number,
            boot: self.world.counts_boots.then_some(publisher.boot),
            epoch: Some(publisher.epoch),
            flow: self.made.len() as f64,
            ..Said::at(publisher.sequence, self.time)
        };
        let payload = if self.world.cose {
            said.cose(TagLength::Short)
        } else {
            said.signed()
        };
        self.made.push((number, payload));
    }

    /// What is refused leaves no trace, and a duplicate none but that it has come.
    fn deliver(&mut self, which: usize, session: u64, resumed: bool) {
        let (device, payload) = self.made[which].clone();
        let gateway = &mut self.gateway;
        (gateway.device, gateway.session, gateway.resumed) = (device, session, resumed);
        let (before, before_copies) = (gateway.snapshot(), snapshot_without_copies(gateway));
        match gateway.admit(&payload) {
            Outcome::Admitted => {}
            Outcome::Duplicate => assert_eq!(snapshot_without_copies(gateway), before_copies),
            Outcome::Refused(_) => assert_eq!(gateway.snapshot(), before),
        }
    }

    /// Everything that is promised about acceptance is checked where it happens.
    fn commit(&mut self) {
        if let Ok(fresh) = self.gateway.guard.commit(&mut self.gateway.log) {
            for admission in &fresh {
                let message = &admission.get().message;
                let (sequence, timestamp) = (message.reading.sequence, message.reading.timestamp);
                let identity = (sequence.unwrap().get(), message.tag.0);
                assert!(self.accepted.insert(identity), "{identity:?} was accepted twice");
                self.accepted_at = self.accepted_at.max(message.received_at);
                assert!(timestamp.unwrap() >= self.accepted_at.minus(30 * SECOND), "late");
                assert!(timestamp.unwrap() <= self.accepted_at.plus(5 * SECOND), "early");
            }
        }
        for (index, device) in self.gateway.guard.devices.iter().enumerate() {
            let on_disk = &self.gateway.log.loaded.devices;
            let on_disk = on_disk.iter().find(|(other, _)| other.0 as usize == index);
            assert_eq!(
                device.state.as_ref().map(DeviceState::without_copies),
                on_disk.map(|(_, state)| state.without_copies()),
                "memory differs from disk"
            );
        }
    }

    /// With a disk that works and a clock that is right, every device's next message is accepted.
    fn everybody_goes_on(&mut self) {
        self.gateway.log.failing = false;
        self.commit();
        self.off_ms = 0;
        // At worst an accepted message has confirmed a clock that was 30 s ahead.
        self.time = self.time.plus(31 * SECOND);
        self.set_clock();
        for device in 0..2 {
            self.make(device, 0);
            let (number, payload) = self.made.last().cloned().unwrap();
            (self.gateway.device, self.gateway.session) = (number, 1);
            assert_eq!(self.gateway.admit(&payload), Outcome::Admitted);
        }
        let accepted = self.accepted.len();
        self.commit();
        assert_eq!(self.accepted.len(), accepted + 2);
    }
}

impl World {
    fn configure(self, device: &mut crate::registry::Device) {
        device.quota_per_s = u32::MAX;
        device.window = if self.window {
            Window::SixtyFour
        } else {
            Window::None
        };
        if self.cose {
            let channels = Arc::new(["flow_rate".into()]);
            device.format = crate::registry::Format::CoseV1 { channels };
        }
    }
}

impl Publisher {
    fn start(&mut self, world: World) {
        if world.counts_boots {
            self.boot += 1;
            self.sequence = self.sequence.next_multiple_of(1_024);
        } else {
            self.sequence = 0;
        }
    }
}

fn snapshot_without_copies(gateway: &Gateway) -> String {
    let mut guard = gateway.guard.clone();
    guard.clock.read(gateway.now);
    for slot in &mut guard.devices {
        slot.state = slot.state.take().map(|state| state.without_copies());
    }
    format!("{guard:?}")
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 500,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_260_219),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_accepted_twice_or_late_and_nobody_is_locked_out(
        world in world(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(world);
        for step in steps {
            if !matches!(step, Step::LoseState) {
                model.step(step);
            }
        }
        model.everybody_goes_on();
    }

    /// Nothing can be promised when the state is lost and the clock lies too.
    #[test]
    fn nothing_is_accepted_twice_or_late_though_states_are_lost(
        world in world(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(world);
        for step in steps {
            if !matches!(step, Step::ClockOff { .. }) {
                model.step(step);
            }
        }
        model.everybody_goes_on();
    }
}
