//! The detector: one reading in, one assessment out.

use crate::debounce::Debounce;
use crate::explain::{Evidence, Explanation};
use crate::features::profile::Profile;
use crate::features::stream::State;
use crate::features::{COUNT, aggregate};
use crate::model::Model;
use crate::rules::{RuleLimits, RuleState, missing};
use std::sync::Arc;
use tidegate_envelope::id::{DeviceId, DeviceIndex};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

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
    const UNJUDGED: Self = Self { score: 0.0, flagged: false, reason: None };

    fn broken(reason: Explanation) -> Self {
        Self { score: RULE_SCORE, flagged: true, reason: Some(Box::new(reason)) }
    }
}

/// Judges the readings of a fleet, each device by its own past. One owner; it never blocks.
#[derive(Debug)]
pub struct Detector {
    model: Option<Arc<Model>>,
    limits: RuleLimits,
    devices: Vec<Device>,
    /// Room for one reading's values and heads.
    x: Vec<f64>,
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
    /// Its profile's position in the model; `None` for the fleet's.
    profile: Option<u32>,
    state: State,
    debounce: Debounce,
}
