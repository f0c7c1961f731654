//! Medians and spread.

use serde::Serialize;

/// Several runs of one measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Runs {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) runs: usize,
}

impl Runs {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: percentile(&sorted, 0.5),
            least: sorted.first().copied().unwrap_or_default(),
            most: sorted.last().copied().unwrap_or_default(),
            runs: sorted.len(),
        }
    }
}

/// The value below which `share` of the sorted values lie.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let position = (last as f64 * share).round() as usize;
    sorted.get(position).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread_do_not_depend_on_the_order() {
        let runs = Runs::of(&[3.0, 1.0, 2.0]);
        assert_eq!(
            (runs.median, runs.least, runs.most, runs.runs),
            (2.0, 1.0, 3.0, 3)
        );
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.99), 5.0);
    }
}
