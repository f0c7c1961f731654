//! What training, evaluation and scoring are asked in the same words.

use crate::demo::SEED;
use clap::{Args, ValueEnum};
use tidegate_detect::forest::Kind;
use tidegate_detect::train::{Alarms, FeatureSet, TrainOptions};
use tidegate_envelope::time::Timestamp;

/// How the forest splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Forest {
    /// One feature a split, as scikit-learn's IsolationForest
    Plain,
    /// Three features a split, and a penalty beyond the range of training
    Oblique,
}

/// What the forest is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Features {
    /// Thirteen features of each reading and its past
    Stream,
    /// The values themselves, without a past
    Raw,
}

/// How a forest is grown.
#[derive(Debug, Args)]
pub(super) struct ForestFlags {
    /// How the forest splits
    #[arg(long, value_enum, default_value_t = Forest::Oblique)]
    pub(super) forest: Forest,
    /// What the forest is shown of a reading
    #[arg(long, value_enum, default_value_t = Features::Stream)]
    pub(super) features: Features,
    /// Trees of the forest
    #[arg(long, default_value_t = 100, value_parser = within::<1, 1_000>)]
    pub(super) trees: usize,
    /// Rows that each tree is grown on
    #[arg(long, default_value_t = 256, value_parser = within::<2, 4_096>)]
    pub(super) subsample: usize,
    /// The same seed and data give the same model
    #[arg(long, default_value_t = SEED)]
    pub(super) seed: u64,
}

/// What training makes of readings that are known not to be ordinary.
pub(super) fn alarms(exclude: bool) -> Alarms {
    if exclude { Alarms::LeaveOut } else { Alarms::Refuse }
}

impl ForestFlags {
    pub(super) fn kind(&self) -> Kind {
        match self.forest {
            Forest::Plain => Kind::Plain,
            Forest::Oblique => Kind::Oblique,
        }
    }

    pub(super) fn options(&self, false_alarm_rate: f64, trained_at: Timestamp) -> TrainOptions {
        TrainOptions {
            trees: self.trees,
            subsample: self.subsample,
            false_alarm_rate,
            forest: self.kind(),
            features: match self.features {
                Features::Stream => FeatureSet::Stream,
                Features::Raw => FeatureSet::Raw,
            },
            ..TrainOptions::new(self.seed, trained_at)
        }
    }
}

/// A false-alarm rate per reading, as the configuration takes it.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (1e-6..=0.1).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("{text} is outside 0.000001 to 0.1"))
    }
}

fn within<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let value = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (LEAST..=MOST).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{text} is outside {LEAST} to {MOST}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes_have_bounds() {
        assert_eq!(rate("1e-4"), Ok(1e-4));
        for wrong in ["0", "0.2", "x", "NaN"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(within::<2, 4_096>("4096"), Ok(4_096));
        assert!(within::<2, 4_096>("4097").is_err() && within::<2, 4_096>("1").is_err());
    }
}
