//! The detector: one reading in, one assessment out.

use crate::channel::MAX_TRACKED;
use crate::classes::ClassModels;
use crate::debounce::Debounce;
use crate::explain::{Evidence, Explanation};
use crate::features::stream::State;
use crate::model::{Model, ProfilePosition};
use crate::rules::{Rule, RuleState, Rules, missing, stuck};
use crate::scorer::{fill, row_of};
use std::sync::Arc;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::guard::Admission;
use tidegate_verify::stage::Fresh;

/// After its first reading a device's forest score counts from this reading on: before, its means
/// rest on too little. Rules hold from the first reading.
pub const WARM_UP_READINGS: u32 = 12;

/// The score of a reading that breaks a rule: the lowest there is.
pub const RULE_SCORE: f32 = -1.0;

/// What became of one reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// Threshold minus anomaly score, −1 to 1: lower is more anomalous, below 0 is over the
    /// threshold. [`RULE_SCORE`] where a rule is broken; 0 where the forest says nothing (no model
    /// for this device, or warm-up).
    pub score: f32,
    /// Whether this is an alarm: a broken rule, or 3 of the last 5 readings over the threshold.
    pub flagged: bool,
    /// Why; there exactly when `flagged`.
    pub reason: Option<Box<Explanation>>,
}

impl Assessment {
    const UNJUDGED: Self = Self {
        score: 0.0,
        flagged: false,
        reason: None,
    };

    fn broken(reason: Explanation) -> Self {
        Self {
            score: RULE_SCORE,
            flagged: true,
            reason: Some(Box::new(reason)),
        }
    }
}

/// Judges the readings of a fleet, each device by its own past. One owner; it never blocks.
#[derive(Debug)]
pub struct Detector {
    models: ClassModels,
    rules: Rules,
    devices: Vec<Device>,
    /// Room for one reading's values and heads.
    x: [f64; MAX_TRACKED],
    heads: Vec<f32>,
}

#[derive(Debug)]
struct Device {
    /// When it was last heard, whatever it said.
    heard: Option<Timestamp>,
    rules: RuleState,
    forest: Option<ForestState>,
}

/// What the forest needs of one device.
#[derive(Debug)]
struct ForestState {
    model: Arc<Model>,
    profile: ProfilePosition,
    state: State,
    debounce: Debounce,
}

/// Why a device's memory cannot be taken up again. The device then begins without a past, which is
/// safe: it warms up, and rules hold from the first reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version of this program.
    #[error("the device's memory has version {found}, only {STATE_VERSION} is known")]
    Version {
        /// The version that it has.
        found: u8,
    },
    /// Made with another model, whose numbers mean something else.
    #[error("the device's memory was made with another model")]
    OtherModel,
    /// Not what this program writes.
    #[error("the device's memory is damaged")]
    Malformed,
}

/// The version of a device's memory that this build writes and reads.
pub const STATE_VERSION: u8 = 1;
/// Most bytes of a device's memory.
pub const MAX_STATE_BYTES: usize = 1_024;

impl Detector {
    /// A detector with one model, for the devices of the registry in the order of their
    /// [`DeviceIndex`]. Profiles are found by name, so a registry may change after training.
    #[must_use]
    pub fn new<'a>(model: Arc<Model>, devices: impl IntoIterator<Item = &'a DeviceId>) -> Self {
        let classless = devices.into_iter().map(|device| (device, ""));
        Self::with_classes(ClassModels::one(model), classless)
    }

    /// A detector with a model for each class; `devices` are names and classes, in the order of
    /// their [`DeviceIndex`].
    #[must_use]
    pub fn with_classes<'a>(
        models: ClassModels,
        devices: impl IntoIterator<Item = (&'a DeviceId, &'a str)>,
    ) -> Self {
        let mut detector = Self {
            models,
            rules: Rules::default(),
            devices: Vec::new(),
            x: [0.0; MAX_TRACKED],
            heads: Vec::new(),
        };
        detector.append_classed(devices);
        detector
    }

    /// A detector without a model: rules only.
    #[must_use]
    pub fn rules_only(devices: usize) -> Self {
        let mut detector = Self::with_classes(ClassModels::default(), []);
        detector.devices.resize_with(devices, || Device {
            heard: None,
            rules: RuleState::default(),
            forest: None,
        });
        detector
    }

    /// Takes further devices without a class, behind those that it has; each begins without a past.
    pub fn append<'a>(&mut self, devices: impl IntoIterator<Item = &'a DeviceId>) {
        self.append_classed(devices.into_iter().map(|device| (device, "")));
    }

    /// Takes further devices with their classes, behind those that it has.
    pub fn append_classed<'a>(&mut self, devices: impl IntoIterator<Item = (&'a DeviceId, &'a str)>) {
        for (id, class) in devices {
            let forest = self
                .models
                .of(class)
                .and_then(|model| ForestState::new(model, id));
            let heads = forest
                .as_ref()
                .map_or(0, |forest| forest.model.profile_at(forest.profile).head_count());
            self.heads.resize(self.heads.len().max(heads), 0.0);
            self.devices.push(Device {
                heard: None,
                rules: RuleState::default(),
                forest,
            });
        }
    }

    /// The same detector with other rules.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Assesses an accepted reading at the time that its device states, or else at its arrival.
    /// `None` when it is of no registered device.
    pub fn assess_fresh(&mut self, admission: &Fresh<Admission>) -> Option<Assessment> {
        let message = &admission.get().message;
        let at = message.reading.timestamp.unwrap_or(message.received_at);
        let device = message
            .device
            .filter(|device| (device.0 as usize) < self.devices.len())?;
        let reading = &message.reading;
        Some(self.judge(device, at, &reading.channels, Some(&reading.status)))
    }

    /// Assesses one reading: for training reports and tests, as nothing says where it is from.
    /// Readings of one device must come in their order. Nothing is allocated unless it is flagged.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    pub fn assess(&mut self, device: DeviceIndex, at: Timestamp, channels: &Channels) -> Assessment {
        self.judge(device, at, channels, None)
    }

    /// The same, of a reading with the status that the device gave it.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    pub fn assess_with_status(
        &mut self,
        device: DeviceIndex,
        at: Timestamp,
        channels: &Channels,
        status: &str,
    ) -> Assessment {
        self.judge(device, at, channels, Some(status))
    }

    fn judge(
        &mut self,
        device: DeviceIndex,
        at: Timestamp,
        channels: &Channels,
        status: Option<&str>,
    ) -> Assessment {
        let device = &mut self.devices[device.0 as usize];
        device.heard = Some(at);
        let Some(forest) = &mut device.forest else {
            let broken = device.rules.check(&self.rules, at, channels, status);
            return broken.map_or(Assessment::UNJUDGED, Assessment::broken);
        };
        let (model, profile) = (&*forest.model, forest.model.profile_at(forest.profile));
        let x = &mut self.x[..profile.channels.len()];
        if let Some(absent) = fill(x, profile, channels) {
            return Assessment::broken(missing(&absent.name, absent.mean));
        }
        let gross = device.rules.check(&self.rules, at, channels, status);
        if let Some(gross) = gross.as_ref().filter(|gross| gross.rule == Some(Rule::Range)) {
            // Flagged by itself already, and the memory must not be disturbed by it.
            return Assessment::broken(gross.clone());
        }
        let heads = &mut self.heads[..profile.head_count()];
        forest.state.observe(profile, at, x, heads);
        let broken = gross.or_else(|| stuck(profile, x, |channel| forest.state.run(channel)));
        if forest.state.readings() <= WARM_UP_READINGS {
            return broken.map_or(Assessment::UNJUDGED, Assessment::broken);
        }
        let row = row_of(model.about().feature_set, profile, heads, x);
        let anomaly = model.forest().score(row.as_slice());
        let threshold = model.calibration_at(forest.profile).threshold;
        let score = (threshold - anomaly).max(RULE_SCORE);
        let alarm = forest.debounce.observe(score < 0.0);
        if let Some(broken) = broken {
            return Assessment::broken(broken);
        }
        let evidence = Evidence {
            profile,
            forest: model.forest(),
            state: &forest.state,
            x,
            heads,
            row: &row,
        };
        let reason = alarm.then(|| Box::new(evidence.explain()));
        Assessment {
            score,
            flagged: alarm,
            reason,
        }
    }

    /// The devices that have been heard and have now been silent for longer than the rules allow,
    /// each with why. Devices that were never heard are not among them.
    pub fn silent(&self, now: Timestamp) -> impl Iterator<Item = (DeviceIndex, Explanation)> {
        let devices = (0_u32..).zip(&self.devices);
        devices.filter_map(move |(index, device)| {
            Some((DeviceIndex(index), self.rules.silent(device.heard?, now)?))
        })
    }

    /// A device's memory as bytes, to be taken up after a restart; at most [`MAX_STATE_BYTES`].
    /// Empty for a device that has not been heard, or is judged by rules only.
    ///
    /// ```text
    /// 1   version
    /// 8   the model: the first bytes of its file's checksum
    /// 1   debounce, one bit for each of the last readings
    /// …   see features::stream::State::write
    /// ```
    ///
    /// What the rules remember is left out: the first reading after a restart has none before it.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    #[must_use]
    pub fn save_state(&self, device: DeviceIndex) -> Vec<u8> {
        let forest = self.devices[device.0 as usize].forest.as_ref();
        let Some(forest) = forest.filter(|forest| forest.state.readings() > 0) else {
            return Vec::new();
        };
        let mut bytes = vec![STATE_VERSION];
        bytes.extend(forest.model.mark());
        bytes.push(forest.debounce.bits());
        forest.state.write(&mut bytes);
        bytes
    }

    /// Takes up a device's memory where [`Detector::save_state`] left it. Nothing is changed after
    /// an error, or by empty `bytes`.
    ///
    /// # Errors
    ///
    /// See [`StateError`].
    ///
    /// # Panics
    ///
    /// When there is no such device.
    pub fn restore_state(&mut self, device: DeviceIndex, bytes: &[u8]) -> Result<(), StateError> {
        let [version, rest @ ..] = bytes else {
            return Ok(());
        };
        if *version != STATE_VERSION {
            return Err(StateError::Version { found: *version });
        }
        let forest = self.devices[device.0 as usize].forest.as_mut();
        let forest = forest.ok_or(StateError::OtherModel)?;
        let (mark, rest) = rest.split_first_chunk::<8>().ok_or(StateError::Malformed)?;
        if *mark != forest.model.mark() {
            return Err(StateError::OtherModel);
        }
        let [debounce, state @ ..] = rest else {
            return Err(StateError::Malformed);
        };
        let profile = forest.model.profile_at(forest.profile);
        let debounce = Debounce::from_bits(*debounce).ok_or(StateError::Malformed)?;
        forest.state = State::read(profile, state).ok_or(StateError::Malformed)?;
        forest.debounce = debounce;
        Ok(())
    }

    /// How many devices it knows.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Bytes that it remembers about one device; bounded by 1 KB.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    #[must_use]
    pub fn state_bytes(&self, device: DeviceIndex) -> usize {
        let device = &self.devices[device.0 as usize];
        let heap = |forest: &ForestState| forest.state.size() - size_of::<State>();
        size_of::<Device>() + device.forest.as_ref().map_or(0, heap)
    }
}

impl ForestState {
    fn new(model: &Arc<Model>, id: &DeviceId) -> Option<Self> {
        let profile = model.profile_position(id)?;
        Some(Self {
            profile,
            state: State::new(model.profile_at(profile)),
            debounce: Debounce::default(),
            model: Arc::clone(model),
        })
    }
}
