//! Scores of one device's readings, one at a time and in order: what reports and outside judges read.
//!
//! A [`Scorer`] knows no rule, threshold or debounce: it is the forest alone. The pipeline uses
//! [`Detector`](crate::detector::Detector).

use crate::channel::MAX_TRACKED;
use crate::explain::{Evidence, Explanation};
use crate::features::profile::{ChannelProfile, Profile};
use crate::features::stream::State;
use crate::features::{FeatureRow, aggregate};
use crate::model::{Model, ProfilePosition};
use crate::train::FeatureSet;
use std::sync::Arc;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// Why a reading has no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The device has no profile in the model, and the model has none for unknown devices.
    #[error("the model has no profile for device {device}: train it with readings of this device")]
    UnknownDevice {
        /// The device.
        device: DeviceId,
    },
    /// A channel of the model is not in the reading. Channels that the model does not know are
    /// left out without an error.
    #[error("channel {channel} is not in the reading, the model needs it")]
    MissingChannel {
        /// The channel's name in messages.
        channel: String,
    },
}

/// Scores the readings of one device by one model.
#[derive(Debug, Clone)]
pub struct Scorer {
    model: Arc<Model>,
    position: ProfilePosition,
    state: State,
    x: [f64; MAX_TRACKED],
    heads: Vec<f32>,
    row: FeatureRow,
}

impl Scorer {
    /// A scorer for `device`, which has not been heard yet.
    ///
    /// # Errors
    ///
    /// [`ScoreError::UnknownDevice`].
    pub fn new(model: Arc<Model>, device: &DeviceId) -> Result<Self, ScoreError> {
        let position = model
            .profile_position(device)
            .ok_or_else(|| ScoreError::UnknownDevice {
                device: device.clone(),
            })?;
        let profile = model.profile_at(position);
        Ok(Self {
            state: State::new(profile),
            heads: vec![0.0; profile.head_count()],
            x: [0.0; MAX_TRACKED],
            row: FeatureRow::default(),
            position,
            model,
        })
    }

    /// The anomaly score of the next reading, above 0 to 1: higher is more anomalous. Readings must
    /// come in their order. Nothing is allocated.
    ///
    /// # Errors
    ///
    /// [`ScoreError::MissingChannel`]; the state is then as it was.
    pub fn score(&mut self, at: Timestamp, channels: &Channels) -> Result<f32, ScoreError> {
        let profile = self.model.profile_at(self.position);
        let x = &mut self.x[..profile.channels.len()];
        if let Some(absent) = fill(x, profile, channels) {
            return Err(ScoreError::MissingChannel {
                channel: absent.name.clone(),
            });
        }
        self.state.observe(profile, at, x, &mut self.heads);
        self.row = row_of(self.model.about().feature_set, profile, &self.heads, x);
        Ok(self.model.forest().score(self.row.as_slice()))
    }

    /// Why the last reading scored as it did; before the first one there is nothing to say.
    #[must_use]
    pub fn explain(&self) -> Option<Explanation> {
        let profile = self.model.profile_at(self.position);
        let evidence = Evidence {
            profile,
            forest: self.model.forest(),
            state: &self.state,
            x: &self.x[..profile.channels.len()],
            heads: &self.heads,
            row: &self.row,
        };
        (self.state.readings() > 0).then(|| evidence.explain())
    }

    /// What the forest was shown of the last reading: features, or raw values.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        self.row.as_slice()
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// What the forest is shown of a reading.
pub(crate) fn row_of(set: FeatureSet, profile: &Profile, heads: &[f32], x: &[f64]) -> FeatureRow {
    match set {
        FeatureSet::Stream => FeatureRow::new(&aggregate(profile, heads)),
        FeatureSet::Raw => FeatureRow::raw(x),
    }
}

/// Writes the values of the profile's channels to `x`; answers the first that is not there. Both
/// lists are sorted by name.
pub(crate) fn fill<'p>(
    x: &mut [f64],
    profile: &'p Profile,
    channels: &Channels,
) -> Option<&'p ChannelProfile> {
    let mut values = channels.iter();
    for (slot, channel) in x.iter_mut().zip(&profile.channels) {
        match values.find(|(name, _)| *name >= channel.name.as_str()) {
            Some((name, value)) if name == channel.name => *slot = value,
            _ => return Some(channel),
        }
    }
    None
}
