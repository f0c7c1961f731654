//! Verifier and replay guard together, through whatever sequence of deliveries, commits, clock
//! changes and crashes: nothing is accepted twice or late, and a refusal changes nothing.

use arbitrary::{Arbitrary, Unstructured};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::{MacKey, RootKey, Tag};
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{Admission, GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::registry::{Device, Format, Registry, TopicShape, Window, Zone};
use tidegate_verify::stage::Unverified;
use tidegate_verify::state::DeviceState;
use tidegate_verify::verifier::{Protection, Verifier};

/// Steps that one input may hold; more would only make it slow.
const MAX_STEPS: usize = 48;
/// 2026-02-19T03:35:05Z.
const START: Timestamp = Timestamp::from_micros(1_771_472_105_000_000);
const TOPICS: [&str; 3] = [
    "site/device-001/sensors",
    "site/device-002/sensors",
    "site/device-003/sensors",
];

/// What can happen.
#[derive(Debug, Arbitrary)]
enum Step<'a> {
    /// A device signs a message and it is delivered, perhaps with one bit changed on the way.
    Say {
        said: Said,
        tampered: Option<(u16, u8)>,
        way: Way,
    },
    /// Any message that was ever signed is delivered once more.
    Again {
        which: u8,
        way: Way,
    },
    /// Any bytes are delivered.
    Bytes {
        payload: &'a [u8],
        way: Way,
    },
    Commit {
        fails: bool,
    },
    /// The gateway's clock is set.
    Clock {
        ms: i32,
    },
    /// kill -9 and start again.
    Crash,
}

/// What a message says.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Said {
    second: bool,
    /// How much the sequence rises.
    step: i16,
    /// The device's clock relative to the gateway's.
    off_ms: i16,
    boot: Option<u8>,
    newer_key: Option<bool>,
}

/// How a message comes.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Way {
    topic: u8,
    session: bool,
    resumed: bool,
    retained: bool,
    principal: u8,
}

/// The keys of both devices in both epochs; deriving them takes longer than a whole run.
static KEYS: LazyLock<[[MacKey; 2]; 2]> = LazyLock::new(|| {
    let root = RootKey::from_bytes([9; 32]);
    [1, 2].map(|number| [0, 1].map(|epoch| MacKey::derive(&root, &device_id(number), KeyEpoch(epoch))))
});

/// Takes `bytes` for a sequence of steps.
///
/// # Panics
/// When a property does not hold.
pub fn check(bytes: &[u8]) {
    let mut rest = Unstructured::new(bytes);
    let Ok((window, strict)) = rest.arbitrary::<(bool, bool)>() else {
        return;
    };
    let mut world = World::new(window, strict);
    for _ in 0..MAX_STEPS {
        if rest.is_empty() {
            break;
        }
        let Ok(step) = rest.arbitrary() else { break };
        world.step(step);
    }
    world.commit(false);
}

struct World {
    registry: Arc<Registry>,
    verifier: Verifier,
    guard: ReplayGuard,
    log: MemoryLog,
    now: Timestamp,
    /// The gateway's time at the newest admission, which acceptance never goes behind.
    floor: Timestamp,
    durable_floor: Timestamp,
    sequences: [u64; 2],
    signed: Vec<Vec<u8>>,
    /// Tags of all that was ever signed by a device; nothing else may be accepted.
    genuine: HashSet<Tag>,
    accepted: HashSet<Tag>,
}

impl World {
    fn new(window: bool, strict: bool) -> Self {
        let registry = Arc::new(registry(window, strict));
        let verifier = Verifier::new(Arc::clone(&registry), Protection::Signed, 4_096);
        let earliest = Timestamp::from_micros(i64::MIN);
        Self {
            guard: ReplayGuard::new(&registry, GuardPolicy::default(), Loaded::default(), START),
            registry,
            verifier,
            log: MemoryLog::default(),
            now: START,
            floor: earliest,
            durable_floor: earliest,
            sequences: [0; 2],
            signed: Vec::new(),
            genuine: HashSet::new(),
            accepted: HashSet::new(),
        }
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Say { said, tampered, way } => {
                let mut payload = self.sign(said);
                if let Some((place, bits)) = tampered {
                    let place = usize::from(place) % payload.len();
                    payload[place] ^= bits;
                }
                self.deliver(&payload, way);
            }
            Step::Again { which, way } => {
                if !self.signed.is_empty() {
                    let payload = self.signed[usize::from(which) % self.signed.len()].clone();
                    self.deliver(&payload, way);
                }
            }
            Step::Bytes { payload, way } => self.deliver(payload, way),
            Step::Commit { fails } => self.commit(fails),
            Step::Clock { ms } => {
                self.now = Timestamp::from_micros(START.as_micros() + i64::from(ms) * 1_000);
            }
            Step::Crash => {
                let loaded = self.log.loaded.clone();
                self.guard = ReplayGuard::new(&self.registry, GuardPolicy::default(), loaded, self.now);
                self.floor = self.durable_floor;
            }
        }
    }

    fn sign(&mut self, said: Said) -> Vec<u8> {
        let which = usize::from(said.second);
        let sequence = self.sequences[which].saturating_add_signed(i64::from(said.step));
        let sequence = Sequence::new(sequence.max(1)).expect("it rises by 2^15 at most");
        self.sequences[which] = sequence.get();
        let epoch = said.newer_key.map(u16::from);
        let device = MessageDeviceId::new(["D-1", "D-2"][which]).expect("a name");
        let channels = Channels::new(vec![("flow_rate".into(), 50.0)]).expect("finite");
        let draft = Draft {
            device: &device,
            timestamp: Timestamp::from_micros(self.now.as_micros() + i64::from(said.off_ms) * 2_000),
            sequence,
            boot: said.boot.map(|boot| Boot(u32::from(boot))),
            epoch: epoch.map(KeyEpoch),
            status: "",
            channels: &channels,
        };
        let key = &KEYS[which][usize::from(epoch.unwrap_or(0))];
        let payload = json_v1::sign(&draft, key);
        let (_, hmac) = payload.split_at(payload.len() - 66);
        let hmac = std::str::from_utf8(&hmac[..64]).expect("hex");
        self.genuine
            .insert(Tag::from_hex(hmac).expect("a signed message ends with its MAC"));
        self.signed.push(payload.clone());
        payload
    }

    fn deliver(&mut self, payload: &[u8], way: Way) {
        let principal = match way.principal % 8 {
            0 => Principal::Anonymous,
            1 => Principal::Certificate {
                id: device_id(1),
                role: Role::Device,
            },
            _ => Principal::Broker,
        };
        let delivery = Delivery {
            topic: TOPICS[usize::from(way.topic) % TOPICS.len()],
            payload,
            retained: way.retained,
            principal: &principal,
            session: SessionId(u64::from(way.session)),
            resumed: way.resumed,
            detached: None,
        };
        let before = self.states();
        let outcome = match self.verifier.verify(Unverified::new(delivery), self.now) {
            Ok(verified) => self.guard.admit(verified, self.now),
            Err(refusal) => Outcome::Refused(refusal),
        };
        match outcome {
            Outcome::Admitted => self.floor = self.floor.max(self.now),
            Outcome::Duplicate | Outcome::Refused(_) => {
                assert!(self.states() == before, "what is not admitted changes nothing");
            }
        }
    }

    fn commit(&mut self, fails: bool) {
        self.log.fails = fails;
        match self.guard.commit(&mut self.log) {
            Ok(fresh) => {
                assert!(!fails, "what is not durable is not released");
                for admission in &fresh {
                    self.accept(admission.get());
                }
                self.durable_floor = self.floor;
            }
            Err(_) => self.floor = self.durable_floor,
        }
        let durable = |index| self.log.loaded.devices.iter().find(|(other, _)| *other == index);
        for (position, state) in self.states().into_iter().enumerate() {
            let index = DeviceIndex(position as u32);
            let durable = durable(index).map(|(_, state)| without_copies(state));
            assert!(state == durable, "after a commit memory is what the disk holds");
        }
    }

    fn accept(&mut self, admission: &Admission) {
        let message = &admission.message;
        assert!(self.genuine.contains(&message.tag), "no device signed this");
        assert!(self.accepted.insert(message.tag), "accepted twice");
        let timestamp = message
            .reading
            .timestamp
            .expect("an accepted message has a timestamp");
        let policy = GuardPolicy::default();
        // The floor that held then is at least the one that was durable before this batch.
        let then = message.received_at.max(self.durable_floor);
        assert!(timestamp >= then.minus(policy.window), "too old");
        assert!(timestamp <= then.max(self.floor).plus(policy.skew), "too new");
    }

    fn states(&self) -> [Option<Vec<u8>>; 2] {
        [0, 1].map(|index| self.guard.state(DeviceIndex(index)).map(without_copies))
    }
}

/// A state with its counts of copies at 0: they name a refusal, and decide about nothing.
fn without_copies(state: &DeviceState) -> Vec<u8> {
    state.without_copies().to_bytes()
}

/// A disk in memory that can be told to fail.
#[derive(Debug, Default)]
struct MemoryLog {
    loaded: Loaded,
    fails: bool,
}

#[derive(Debug)]
struct DiskFull;

impl std::fmt::Display for DiskFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disk full")
    }
}

impl std::error::Error for DiskFull {}

impl ReplayLog for MemoryLog {
    type Error = DiskFull;

    fn load(&mut self) -> Result<Loaded, DiskFull> {
        Ok(self.loaded.clone())
    }

    fn commit(&mut self, batch: &[Admission], floor: Timestamp) -> Result<(), DiskFull> {
        if self.fails {
            return Err(DiskFull);
        }
        assert!(
            self.loaded.floor.is_none_or(|before| before <= floor),
            "the floor fell"
        );
        for admission in batch {
            let index = admission.message.device.expect("only devices sign");
            let state = admission
                .state
                .as_ref()
                .expect("a signed message leads to a state");
            let state = DeviceState::from_bytes(&state.to_bytes()).expect("it was written so");
            self.loaded.devices.retain(|(other, _)| *other != index);
            self.loaded.devices.push((index, state));
        }
        self.loaded.floor = Some(floor);
        Ok(())
    }
}

fn registry(window: bool, strict: bool) -> Registry {
    let zone = ZoneId::new("kitchen").expect("a name");
    let device = |number: u16| Device {
        id: device_id(number),
        message_id: MessageDeviceId::new(&format!("D-{number}")).expect("a name"),
        topic_segment: format!("device-{number:03}"),
        zone: zone.clone(),
        class: "water-inlet".into(),
        enabled: true,
        keys: [0, 1]
            .map(|epoch| {
                (
                    KeyEpoch(epoch),
                    KEYS[usize::from(number) - 1][usize::from(epoch)].clone(),
                )
            })
            .into(),
        format: Format::JsonV1,
        strict_sequence: strict,
        window: if window { Window::SixtyFour } else { Window::None },
        quota_per_s: 1_000,
    };
    let zones = vec![Zone {
        id: zone.clone(),
        name: "Kitchen".into(),
    }];
    let topics = TopicShape::new("site/{device}/sensors").expect("a shape");
    Registry::new(zones, vec![device(1), device(2)], topics).expect("two sound devices")
}

fn device_id(number: u16) -> DeviceId {
    DeviceId::new(&format!("device-{number:03}")).expect("a name")
}
