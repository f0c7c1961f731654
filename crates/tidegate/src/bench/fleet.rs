//! Devices and signed messages in memory, for what is measured without a network.

use anyhow::{Context, Result, anyhow, bail};
use compact_str::CompactString;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use tidegate_envelope::cose_v1::{self, TagLength};
use tidegate_envelope::id::{Boot, DeviceId, DeviceIndex, KeyEpoch, MessageDeviceId, Sequence, ZoneId};
use tidegate_envelope::json_v1;
use tidegate_envelope::key::{MacKey, RootKey};
use tidegate_envelope::principal::Principal;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::delivery::{Delivery, SessionId};
use tidegate_verify::guard::{Admission, GuardPolicy, Outcome, ReplayGuard};
use tidegate_verify::log::{Loaded, ReplayLog};
use tidegate_verify::registry::{Device, Format, Registry, TopicShape, Window, Zone};
use tidegate_verify::stage::{Unverified, Verified};
use tidegate_verify::verifier::{Message, Protection, Verifier};

/// Messages in one commit, as the pipeline has them at most.
pub(super) const GROUP: usize = 512;
/// Messages that are fetched together: [`Verifier::fetch`] looks at no more.
const FETCHED: usize = 64;
const CHANNELS: [&str; 5] = [
    "pressure_upstream",
    "pressure_downstream",
    "flow_rate",
    "gate_a_position",
    "gate_b_position",
];

/// A signed format whose checks are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wire {
    JsonV1,
    CoseV1,
}

impl Wire {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::JsonV1 => "json-v1",
            Self::CoseV1 => "cose-v1",
        }
    }
}

/// Registered devices that all send in one format.
pub(super) struct Fleet {
    wire: Wire,
    root: RootKey,
    pub(super) registry: Arc<Registry>,
    pub(super) now: Timestamp,
}

/// A message as a broker hands it over.
pub(super) struct Sent {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

impl Fleet {
    pub(super) fn new(wire: Wire, count: u32, root: [u8; 32], now: Timestamp) -> Result<Self> {
        let root = RootKey::from_bytes(root);
        let zone = Zone {
            id: ZoneId::new("kitchen")?,
            name: "Kitchen".into(),
        };
        let format = match wire {
            Wire::JsonV1 => Format::JsonV1,
            Wire::CoseV1 => Format::CoseV1 { channels: channels() },
        };
        let devices = (1..=count).map(|number| {
            let id = DeviceId::new(&format!("device-{number:03}"))?;
            Ok(Device {
                message_id: MessageDeviceId::new(&format!("HYDROLOGIC-Device-{number:03}"))?,
                topic_segment: id.to_string(),
                zone: zone.id.clone(),
                class: "water-inlet".into(),
                enabled: true,
                keys: vec![(KeyEpoch(0), MacKey::derive(&root, &id, KeyEpoch(0)))],
                format: format.clone(),
                strict_sequence: false,
                window: Window::None,
                quota_per_s: u32::MAX,
                id,
            })
        });
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let topics = TopicShape::new("hydroficient/grandmarina/{device}/sensors")?;
        Ok(Self {
            wire,
            root,
            registry: Arc::new(Registry::new(vec![zone.clone()], devices, topics)?),
            now,
        })
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.registry), Protection::Signed, 65_536)
    }

    pub(super) fn guard(&self) -> ReplayGuard {
        ReplayGuard::new(
            &self.registry,
            GuardPolicy::default(),
            Loaded::default(),
            self.now,
        )
    }

    pub(super) fn key(&self, device: DeviceIndex) -> MacKey {
        MacKey::derive(&self.root, &self.registry.device(device).id, KeyEpoch(0))
    }

    /// A message of five channels, signed by its device.
    pub(super) fn send(&self, device: DeviceIndex, sequence: u64) -> Result<Sent> {
        let entry = self.registry.device(device);
        let key = self.key(device);
        let topic = self.registry.topics().telemetry(&entry.topic_segment);
        let sequence = Sequence::new(sequence).context("sequence")?;
        let step = (sequence.get() % 100) as f64 / 100.0;
        let values = [60.0 + step, 55.0 + step, 48.0 + step, 45.3, 44.9];
        let payload = match self.wire {
            Wire::JsonV1 => {
                let named = CHANNELS.iter().zip(values);
                let channels = Channels::new(named.map(|(name, value)| ((*name).into(), value)).collect());
                let draft = json_v1::Draft {
                    device: &entry.message_id,
                    timestamp: self.now,
                    sequence,
                    boot: None,
                    epoch: None,
                    status: "operational",
                    channels: &channels.context("channels")?,
                };
                json_v1::sign(&draft, &key)
            }
            Wire::CoseV1 => {
                let draft = cose_v1::Draft {
                    epoch: KeyEpoch(0),
                    boot: Boot(1),
                    sequence,
                    timestamp: self.now,
                    status: 1,
                    values: &values.map(|value| value as f32),
                };
                cose_v1::sign(&draft, TagLength::Full, &key, &topic).context("a draft of cose-v1")?
            }
        };
        Ok(Sent { topic, payload })
    }

    /// `count` messages of device 1.
    pub(super) fn of_one(&self, count: u64) -> Result<Vec<Sent>> {
        (1..=count)
            .map(|sequence| self.send(DeviceIndex(0), sequence))
            .collect()
    }

    /// Passes messages through verifier and guard, in groups with a commit each.
    ///
    /// `fetched` tells both what comes next, as a subscriber can that has a burst at hand; else
    /// each message comes as a surprise.
    pub(super) fn pass<L: ReplayLog>(
        &self,
        verifier: &Verifier,
        guard: &mut ReplayGuard,
        log: &mut L,
        (messages, group): (&[Sent], usize),
        fetched: bool,
    ) -> Result<()> {
        let mut verified = Vec::with_capacity(group);
        for group in messages.chunks(group) {
            for burst in group.chunks(FETCHED) {
                if fetched {
                    verifier.fetch(burst.iter().map(|sent| sent.topic.as_str()));
                }
                for sent in burst {
                    verified.push(self.verify(verifier, sent)?);
                }
            }
            if fetched {
                guard.fetch(verified.iter().filter_map(|message| message.get().device));
            }
            for message in verified.drain(..) {
                if guard.admit(message, self.now) != Outcome::Admitted {
                    bail!("a genuine message was not admitted");
                }
            }
            guard.commit(log)?;
        }
        Ok(())
    }

    pub(super) fn verify(&self, verifier: &Verifier, sent: &Sent) -> Result<Verified<Message>> {
        let delivery = Delivery {
            topic: &sent.topic,
            payload: &sent.payload,
            retained: false,
            principal: &Principal::Broker,
            session: SessionId(1),
            resumed: false,
            detached: None,
        };
        let verified = verifier.verify(Unverified::new(delivery), self.now);
        verified.map_err(|refusal| anyhow!("refused: {refusal:?}"))
    }
}

/// The channels of a message, as a registry names them.
pub(super) fn channels() -> Arc<[CompactString]> {
    CHANNELS.iter().copied().map(CompactString::from).collect()
}

/// A log that keeps nothing: this measures the checks, not the disk.
pub(super) struct NoLog;

impl ReplayLog for NoLog {
    type Error = std::convert::Infallible;

    fn load(&mut self) -> Result<Loaded, Self::Error> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, _batch: &[Admission], _floor: Timestamp) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Nanoseconds for each of `count` things since `start`.
pub(super) fn nanoseconds_each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}
