//! The detector: one reading in, one assessment out.

use crate::channel::MAX_TRACKED;
use crate::debounce::Debounce;
use crate::explain::{Evidence, Explanation};
use crate::features::aggregate;
use crate::features::profile::{ChannelProfile, Profile};
use crate::features::stream::State;
use crate::model::{Model, ProfilePosition};
use crate::rules::{Rule, RuleLimits, RuleState, missing, stuck};
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
    model: Option<Arc<Model>>,
    limits: RuleLimits,
    devices: Vec<Device>,
    /// Room for one reading's values and heads.
    x: [f64; MAX_TRACKED],
    heads: Vec<f32>,
}

#[derive(Debug)]
struct Device {
    rules: RuleState,
    forest: Option<ForestState>,
}

/// What the forest needs of one device.
#[derive(Debug)]
struct ForestState {
    profile: ProfilePosition,
    state: State,
    debounce: Debounce,
}

impl Detector {
    /// A detector with a model, for the devices of the registry in the order of their
    /// [`DeviceIndex`]. Profiles are found by name, so a registry may change after training.
    #[must_use]
    pub fn new<'a>(model: Arc<Model>, devices: impl IntoIterator<Item = &'a DeviceId>) -> Self {
        let device = |id| Device {
            rules: RuleState::default(),
            forest: ForestState::new(&model, id),
        };
        let devices: Vec<_> = devices.into_iter().map(device).collect();
        let profiles = || {
            devices
                .iter()
                .filter_map(|device| device.forest.as_ref()?.profile(&model))
        };
        let most_heads = profiles().map(Profile::head_count).max().unwrap_or(0);
        Self {
            limits: RuleLimits::default(),
            heads: vec![0.0; most_heads],
            x: [0.0; MAX_TRACKED],
            devices,
            model: Some(model),
        }
    }

    /// A detector without a model: rules only.
    #[must_use]
    pub fn rules_only(devices: usize) -> Self {
        let device = || Device {
            rules: RuleState::default(),
            forest: None,
        };
        Self {
            model: None,
            limits: RuleLimits::default(),
            devices: std::iter::repeat_with(device).take(devices).collect(),
            x: [0.0; MAX_TRACKED],
            heads: Vec::new(),
        }
    }

    /// Takes further devices, behind those that it has; each begins without a past.
    pub fn append<'a>(&mut self, devices: impl IntoIterator<Item = &'a DeviceId>) {
        for id in devices {
            let forest = self
                .model
                .as_deref()
                .and_then(|model| ForestState::new(model, id));
            let profile = self.model.as_deref().zip(forest.as_ref());
            let heads = profile
                .and_then(|(model, forest)| forest.profile(model))
                .map_or(0, Profile::head_count);
            self.heads.resize(self.heads.len().max(heads), 0.0);
            self.devices.push(Device {
                rules: RuleState::default(),
                forest,
            });
        }
    }

    /// The same detector with other limits.
    #[must_use]
    pub fn with_limits(self, limits: RuleLimits) -> Self {
        Self { limits, ..self }
    }

    /// Assesses an accepted reading at the time that its device states, or else at its arrival.
    /// `None` when it is of no registered device.
    pub fn assess_fresh(&mut self, admission: &Fresh<Admission>) -> Option<Assessment> {
        let message = &admission.get().message;
        let at = message.reading.timestamp.unwrap_or(message.received_at);
        let device = message
            .device
            .filter(|device| (device.0 as usize) < self.devices.len())?;
        Some(self.assess(device, at, &message.reading.channels))
    }

    /// Assesses one reading: for training reports and tests, as nothing says where it is from.
    /// Readings of one device must come in their order. Nothing is allocated unless it is flagged.
    ///
    /// # Panics
    ///
    /// When there is no such device.
    pub fn assess(&mut self, device: DeviceIndex, at: Timestamp, channels: &Channels) -> Assessment {
        let device = &mut self.devices[device.0 as usize];
        let forest = self.model.as_deref().zip(device.forest.as_mut());
        let forest = forest.and_then(|(model, state)| Some((model, state.profile(model)?, state)));
        let Some((model, profile, forest)) = forest else {
            let broken = device.rules.check(&self.limits, at, channels);
            return broken.map_or(Assessment::UNJUDGED, Assessment::broken);
        };
        let x = &mut self.x[..profile.channels.len()];
        if let Some(absent) = fill(x, profile, channels) {
            return Assessment::broken(missing(&absent.name, absent.mean));
        }
        let gross = device.rules.check(&self.limits, at, channels);
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
        let features = aggregate(profile, heads);
        let score = model.calibration().threshold - model.forest().score(&features);
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
            features: &features,
        };
        let reason = alarm.then(|| Box::new(evidence.explain()));
        Assessment {
            score,
            flagged: alarm,
            reason,
        }
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
    fn new(model: &Model, id: &DeviceId) -> Option<Self> {
        let position = model.profile_position(id)?;
        let state = State::new(model.profile_at(position)?);
        Some(Self {
            profile: position,
            state,
            debounce: Debounce::default(),
        })
    }

    fn profile<'m>(&self, model: &'m Model) -> Option<&'m Profile> {
        model.profile_at(self.profile)
    }
}

/// Writes the values of the profile's channels to `x`; answers the first that is not there. Both
/// lists are sorted by name.
fn fill<'p>(x: &mut [f64], profile: &'p Profile, channels: &Channels) -> Option<&'p ChannelProfile> {
    let mut values = channels.iter();
    for (slot, channel) in x.iter_mut().zip(&profile.channels) {
        match values.find(|(name, _)| *name >= channel.name.as_str()) {
            Some((name, value)) if name == channel.name => *slot = value,
            _ => return Some(channel),
        }
    }
    None
}
