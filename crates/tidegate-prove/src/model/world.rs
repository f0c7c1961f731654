//! The world's state, what can happen next, and what must hold then.

use super::coverage::Coverage;
use super::devices::{Devices, Made, Publisher};
use super::disk::{Disk, index};
use super::events::{Bounds, Event, Setting, Way};
use stateright::{Model, Property};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_envelope::principal::Principal;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{Admission, GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::stage::Unverified;
use tidegate_verify::state::DeviceState;
use tidegate_verify::verdict::Notice;
use tidegate_verify::verifier::{Protection, Verifier};

/// 2026-02-19T03:35:05Z.
const START: Timestamp = Timestamp::from_micros(1_771_472_105_000_000);
const MAX_PAYLOAD_BYTES: usize = 4_096;
/// Longer than the skew, and twice longer than the time for redelivery; longer than the window.
const WAITS_S: [u32; 2] = [6, 31];
/// Wrong by more than the window.
const CLOCKS_S: [i32; 3] = [-60, 0, 60];
const SKIPPED: u64 = 3;

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    AcceptedTwice,
    AcceptedLate,
    AcknowledgedUndurable,
    ReleasedUndurable,
    RefusalChanged,
    MemoryDiffers,
    Forgotten,
    LockedOut,
}

impl Broken {
    pub(super) const ALL: [Self; 8] = [
        Self::AcceptedTwice,
        Self::AcceptedLate,
        Self::AcknowledgedUndurable,
        Self::ReleasedUndurable,
        Self::RefusalChanged,
        Self::MemoryDiffers,
        Self::Forgotten,
        Self::LockedOut,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AcceptedTwice => "a message is accepted twice",
            Self::AcceptedLate => "a message from outside the window is accepted",
            Self::AcknowledgedUndurable => "a message is acknowledged as accepted and not durable",
            Self::ReleasedUndurable => "a message is released and not durable",
            Self::RefusalChanged => "a refusal changes a device's state",
            Self::MemoryDiffers => "after a commit memory is not what the disk holds",
            Self::Forgotten => "an admitted message is lost that its broker believes done",
            Self::LockedOut => "a known device's newest message is refused though it is in time",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stays the same through one exploration.
pub(super) struct World {
    bounds: Bounds,
    devices: Devices,
    coverage: Arc<Coverage>,
    stop: Arc<AtomicBool>,
}

/// Everything that changes.
#[derive(Clone)]
pub(super) struct State {
    /// How often what may still happen.
    left: Bounds,
    publishers: [Publisher; 2],
    /// Every message that was ever signed. A message is named by its place here.
    made: Vec<Arc<Made>>,
    /// Messages that the broker holds until they are acknowledged, a bit each.
    held: u32,
    /// True time, which the devices' clocks show.
    now: Timestamp,
    ahead_s: i32,
    // The gateway process; lost in a crash.
    guard: ReplayGuard,
    /// Admitted messages in order; their answers wait for the commit.
    admitted: Vec<Waiting>,
    /// Redelivered ones, whose answers wait with them.
    duplicates: u32,
    /// Refused ones, whose answers wait too: what they repeat may be among the admitted.
    refused: u32,
    /// Answers that are on their way: the message is accepted and durable, a bit each.
    answers: u32,
    disk: Disk,
    // What the properties need to know.
    released: u32,
    durable_floor: Option<Timestamp>,
    broken: Option<Broken>,
}

/// A message between admission and commit.
#[derive(Debug, Clone, Copy, Hash)]
struct Waiting {
    message: u8,
    from_broker: bool,
    /// The gateway's time when it was admitted, not behind its floor.
    at: Timestamp,
}

impl World {
    pub(super) fn new(
        setting: &Setting,
        bounds: Bounds,
        seed: u64,
        coverage: Arc<Coverage>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let devices = Devices::new(setting, seed);
        Self {
            bounds,
            devices,
            coverage,
            stop,
        }
    }

    /// A new one for each delivery: what quotas remember of other orders is no part of a state.
    fn verifier(&self) -> Verifier {
        Verifier::new(
            Arc::clone(&self.devices.registry),
            Protection::Signed,
            MAX_PAYLOAD_BYTES,
        )
    }

    fn started(&self, loaded: Loaded, now: Timestamp) -> ReplayGuard {
        ReplayGuard::new(&self.devices.registry, GuardPolicy::default(), loaded, now)
    }
}

impl Model for World {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            left: self.bounds,
            publishers: Default::default(),
            made: Vec::new(),
            held: 0,
            now: START,
            ahead_s: 0,
            guard: self.started(Loaded::default(), START),
            admitted: Vec::new(),
            duplicates: 0,
            refused: 0,
            answers: 0,
            disk: Disk::default(),
            released: 0,
            durable_floor: None,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let left = &state.left;
        for device in 0..2 {
            let publisher = state.publishers[device];
            if left.says[device] > 0 {
                events.push(Event::Say(device));
                events.extend((left.skips > 0).then_some(Event::Skip(device)));
                // What a device does before it is silent changes nothing.
                events.extend((left.starts > 0 && publisher.has_spoken()).then_some(Event::Start(device)));
                let rotates = left.rotations > 0 && !publisher.has_newer_key();
                events.extend(rotates.then_some(Event::Rotate(device)));
            }
            let clones = left.clones > 0 && publisher.has_spoken();
            events.extend(clones.then_some(Event::Clone(device)));
        }
        for message in 0..state.made.len() {
            let held = state.held >> message & 1 == 1;
            let ways = Way::ALL.into_iter().filter(|way| held || *way == Way::Attacker);
            events.extend(ways.map(|way| Event::Deliver(message, way)));
        }
        if !state.admitted.is_empty() {
            events.push(Event::Commit);
            events.extend((left.failures > 0).then_some(Event::FailCommit));
        }
        events.extend((state.answers > 0).then_some(Event::Acknowledge));
        // Before anything was said the world has no past that a crash or a time could change.
        if !state.made.is_empty() {
            events.extend((left.crashes > 0).then_some(Event::Crash));
            if left.waits > 0 {
                events.extend(WAITS_S.map(|s| Event::Wait { s }));
            }
        }
        if left.clock_changes > 0 {
            let others = CLOCKS_S.into_iter().filter(|ahead_s| *ahead_s != state.ahead_s);
            events.extend(others.map(|ahead_s| Event::SetClock { ahead_s }));
        }
    }

    fn next_state(&self, before: &State, event: Event) -> Option<State> {
        let mut state = before.clone();
        let left = &mut state.left;
        match event {
            Event::Say(device) | Event::Skip(device) => {
                left.says[device] -= 1;
                let skips = matches!(event, Event::Skip(_));
                left.skips -= u8::from(skips);
                state.publishers[device].advance(if skips { 1 + SKIPPED } else { 1 });
                state.sign(self, device);
            }
            Event::Clone(device) => {
                left.clones -= 1;
                state.sign(self, device);
            }
            Event::Start(device) => {
                left.starts -= 1;
                self.devices.start(&mut state.publishers[device]);
            }
            Event::Rotate(device) => {
                left.rotations -= 1;
                state.publishers[device].rotate();
            }
            Event::Deliver(message, way) => state.deliver(self, message, way),
            Event::Commit => state.commit(self, false),
            Event::FailCommit => {
                left.failures -= 1;
                state.commit(self, true);
            }
            Event::Acknowledge => state.acknowledge(),
            Event::Crash => {
                left.crashes -= 1;
                state.crash(self);
            }
            Event::Wait { s } => {
                left.waits -= 1;
                state.now = state.now.plus(Duration::from_secs(u64::from(s)));
            }
            Event::SetClock { ahead_s } => {
                left.clock_changes -= 1;
                state.ahead_s = ahead_s;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds<const BROKEN: usize>(_: &World, state: &State) -> bool {
            state.broken != Some(Broken::ALL[BROKEN])
        }
        let conditions: [fn(&Self, &State) -> bool; Broken::ALL.len()] = [
            holds::<0>, holds::<1>, holds::<2>, holds::<3>, holds::<4>, holds::<5>, holds::<6>, holds::<7>,
        ];
        let named = Broken::ALL.into_iter().zip(conditions);
        named
            .map(|(broken, condition)| Property::always(broken.name(), condition))
            .collect()
    }
}

impl State {
    /// What the gateway's clock shows.
    fn clock(&self) -> Timestamp {
        Timestamp::from_micros(self.now.as_micros() + i64::from(self.ahead_s) * 1_000_000)
    }

    fn sign(&mut self, world: &World, device: usize) {
        let value = u8::try_from(self.made.len()).expect("there are few messages");
        let made = world
            .devices
            .sign(device, self.publishers[device], self.now, value);
        self.held |= 1 << self.made.len();
        self.made.push(Arc::new(made));
    }

    fn deliver(&mut self, world: &World, message: usize, way: Way) {
        let made = Arc::clone(&self.made[message]);
        let now = self.clock();
        let delivery = Delivery {
            topic: &world.devices.topics[made.device],
            payload: &made.payload,
            retained: false,
            principal: &Principal::Broker,
            session: SessionId(if way == Way::Attacker { 2 } else { 1 }),
            resumed: way == Way::Resumed,
            detached: None,
        };
        let before = self.states();
        let must_be_admitted = self.is_newest_and_in_time(&made);
        let outcome = match world.verifier().verify(Unverified::new(delivery), now) {
            Ok(verified) => self.guard.admit(verified, now),
            Err(refusal) => Outcome::Refused(refusal),
        };
        if outcome != Outcome::Admitted && before != self.states() {
            self.broken = Some(Broken::RefusalChanged);
        }
        if outcome != Outcome::Admitted && must_be_admitted {
            self.broken = Some(Broken::LockedOut);
        }
        let from_broker = way != Way::Attacker;
        match outcome {
            Outcome::Admitted => self.admitted.push(Waiting {
                message: u8::try_from(message).expect("there are few messages"),
                from_broker,
                at: self.time(),
            }),
            Outcome::Duplicate => {
                world.coverage.reach("duplicate");
                let answered = if self.admitted.is_empty() {
                    &mut self.answers
                } else {
                    &mut self.duplicates
                };
                *answered |= u32::from(from_broker) << message;
            }
            Outcome::Refused(refusal) => {
                world.coverage.reach(refusal.reason.as_str());
                self.refused |= u32::from(from_broker) << message;
                if self.admitted.is_empty() {
                    self.answer_refused();
                }
            }
        }
    }

    fn commit(&mut self, world: &World, fails: bool) {
        self.disk.full = fails;
        let committed = self.guard.commit(&mut self.disk);
        self.disk.full = false;
        let admitted = std::mem::take(&mut self.admitted);
        let duplicates = std::mem::take(&mut self.duplicates);
        match committed {
            Ok(fresh) => {
                for (waiting, admission) in admitted.iter().zip(&fresh) {
                    self.release(world, *waiting, admission.get());
                }
                self.answers |= duplicates;
                self.answer_refused();
                self.durable_floor = admitted.last().map(|waiting| waiting.at);
            }
            Err(_) => {
                world.coverage.reach("storage_unavailable");
                self.refused = 0;
                self.lose(&admitted);
            }
        }
        let in_memory = self.states();
        let on_disk = self
            .disk
            .states
            .each_ref()
            .map(|state| state.as_ref().map(DeviceState::without_copies));
        if in_memory != on_disk {
            self.broken = Some(Broken::MemoryDiffers);
        }
    }

    /// A message goes on to detection and page.
    fn release(&mut self, world: &World, waiting: Waiting, admission: &Admission) {
        world.coverage.reach("accepted");
        for notice in &admission.notices {
            world.coverage.reach(match notice {
                Notice::Gap { .. } => "gap",
                Notice::PublisherRestart => "publisher_restart",
                Notice::ClockRollback { .. } => "clock_rollback",
            });
        }
        let message = usize::from(waiting.message);
        let timestamp = self.made[message].timestamp;
        let policy = GuardPolicy::default();
        if timestamp < waiting.at.minus(policy.window) || timestamp > waiting.at.plus(policy.skew) {
            self.broken = Some(Broken::AcceptedLate);
        }
        if self.released >> message & 1 == 1 {
            self.broken = Some(Broken::AcceptedTwice);
        }
        if !self.is_durable(message) || admission.message.tag != self.made[message].tag {
            self.broken = Some(Broken::ReleasedUndurable);
        }
        self.released |= 1 << message;
        self.answers |= u32::from(waiting.from_broker) << message;
    }

    /// The broker forgets what was refused.
    fn answer_refused(&mut self) {
        self.held &= !std::mem::take(&mut self.refused);
    }

    fn acknowledge(&mut self) {
        let answers = std::mem::take(&mut self.answers);
        if (0..self.made.len()).any(|message| answers >> message & 1 == 1 && !self.is_durable(message)) {
            self.broken = Some(Broken::AcknowledgedUndurable);
        }
        self.held &= !answers;
    }

    fn crash(&mut self, world: &World) {
        let admitted = std::mem::take(&mut self.admitted);
        self.lose(&admitted);
        (self.duplicates, self.refused, self.answers) = (0, 0, 0);
        let loaded = self.disk.load().expect("this disk can be read");
        self.guard = world.started(loaded, self.clock());
    }

    /// What was admitted will not become durable: the broker must still have it.
    fn lose(&mut self, admitted: &[Waiting]) {
        let mut from_broker = admitted.iter().filter(|waiting| waiting.from_broker);
        if from_broker.any(|waiting| self.held >> waiting.message & 1 == 0) {
            self.broken = Some(Broken::Forgotten);
        }
    }

    /// The latest time at which a message was admitted, as far as it still counts.
    fn floor(&self) -> Option<Timestamp> {
        let newest = self.admitted.last().map(|waiting| waiting.at);
        newest.or(self.durable_floor)
    }

    /// The gateway's clock, which does not go back behind an admission.
    fn time(&self) -> Timestamp {
        let now = self.clock();
        self.floor().map_or(now, |floor| floor.max(now))
    }

    fn is_newest_and_in_time(&self, made: &Made) -> bool {
        let (now, policy) = (self.time(), GuardPolicy::default());
        let in_time = made.timestamp >= now.minus(policy.window) && made.timestamp <= now.plus(policy.skew);
        let state = self.guard.state(index(made.device));
        in_time && state.is_some_and(|state| made.sequence > state.mark() && made.timestamp > state.newest())
    }

    fn is_durable(&self, message: usize) -> bool {
        self.disk.readings.contains(&self.made[message].tag)
    }

    fn states(&self) -> [Option<DeviceState>; 2] {
        [0, 1].map(|place| self.guard.state(index(place)).map(DeviceState::without_copies))
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.left.hash(hasher);
        self.publishers.hash(hasher);
        for made in &self.made {
            // What a message says follows from its MAC.
            made.tag.hash(hasher);
        }
        (
            self.held,
            self.duplicates,
            self.refused,
            self.answers,
            self.released,
        )
            .hash(hasher);
        (self.now, self.ahead_s).hash(hasher);
        self.guard.hash(hasher);
        self.admitted.hash(hasher);
        self.disk.hash(hasher);
        self.durable_floor.hash(hasher);
        self.broken.hash(hasher);
    }
}

/// By hash, which is how the checker knows states again.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let hash = |state: &Self| {
            let mut hasher = DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}
