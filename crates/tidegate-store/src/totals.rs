//! Exact counts of what became of messages and connections, over the whole life of the database.

use crate::event::Outcome;
use std::collections::BTreeMap;
use tidegate_envelope::reason::Reason;

/// Counts by outcome and reason. Accepted messages have no reason, and include flagged ones.
///
/// At most outcomes × reasons entries, so it needs no further bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<(Outcome, Option<Reason>), u64>);

impl Totals {
    /// How often `outcome` had this reason.
    #[must_use]
    pub fn count(&self, outcome: Outcome, reason: Option<Reason>) -> u64 {
        self.0.get(&(outcome, reason)).copied().unwrap_or(0)
    }

    /// How often there was this outcome, for whatever reason.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.iter()
            .filter(|entry| entry.0 == outcome)
            .map(|entry| entry.2)
            .sum()
    }

    /// All counts that are not zero, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, Option<Reason>, u64)> {
        self.0
            .iter()
            .map(|(&(outcome, reason), &count)| (outcome, reason, count))
    }

    /// Counts `count` more.
    pub fn add(&mut self, outcome: Outcome, reason: Option<Reason>, count: u64) {
        if count > 0 {
            let total = self.0.entry((outcome, reason)).or_default();
            *total = total.saturating_add(count);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (outcome, reason, count) in other.iter() {
            self.add(outcome, reason, count);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
