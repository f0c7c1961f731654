//! Counts per second over the last two minutes.

use crate::protocol::SecondView;

/// How many seconds are kept.
pub(crate) const SECONDS: usize = 120;
/// A clock set back by more than this starts the series anew; by less, the newest second takes the counts.
const MAX_STEP_BACK_S: i64 = 2;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Accepted,
    Flagged,
    Blocked,
    /// Counted beside `Accepted`.
    GotIn,
}

/// A ring of seconds, always full: seconds in which nothing happened hold zeros.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    slots: [SecondView; SECONDS],
    /// The running second.
    newest: i64,
    /// One bit a slot: changed since [`take_changed`](Self::take_changed).
    changed: u128,
}

impl Series {
    /// Two minutes of nothing, up to the second `now_s`.
    pub(crate) fn new(now_s: i64) -> Self {
        let mut series = Self {
            slots: [empty(0); SECONDS],
            newest: now_s,
            changed: 0,
        };
        series.clear(now_s);
        // Whoever looks first gets all of it.
        series.changed = 0;
        series
    }

    /// Moves on to the second `now_s`.
    pub(crate) fn advance(&mut self, now_s: i64) {
        let steps = now_s - self.newest;
        if steps >= SECONDS as i64 || steps < -MAX_STEP_BACK_S {
            self.clear(now_s);
            return;
        }
        for t in self.newest + 1..=now_s {
            let at = slot(t);
            self.slots[at] = empty(t);
            self.changed |= 1 << at;
        }
        self.newest = self.newest.max(now_s);
    }

    /// Moves on to the second `at_s`, never back: for times that come from events.
    pub(crate) fn advance_to_at_least(&mut self, at_s: i64) {
        if at_s > self.newest {
            self.advance(at_s);
        }
    }

    /// Counts one event at second `at_s`; one from outside the window counts in the newest second.
    pub(crate) fn add(&mut self, at_s: i64, count: Count) {
        let inside = at_s <= self.newest && at_s > self.newest - SECONDS as i64;
        let at = slot(if inside { at_s } else { self.newest });
        let second = &mut self.slots[at];
        let field = match count {
            Count::Accepted => &mut second.accepted,
            Count::Flagged => &mut second.flagged,
            Count::Blocked => &mut second.blocked,
            Count::GotIn => &mut second.got_in,
        };
        *field = field.saturating_add(1);
        self.changed |= 1 << at;
    }

    /// All seconds, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = SecondView> + '_ {
        self.last(SECONDS)
    }

    /// The last `count` seconds, oldest first, the running one included.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = SecondView> + '_ {
        let count = count.min(SECONDS) as i64;
        (self.newest - count + 1..=self.newest).map(|t| self.slots[slot(t)])
    }

    /// The seconds that changed since the last call, oldest first.
    pub(crate) fn take_changed(&mut self) -> Vec<SecondView> {
        let changed = std::mem::take(&mut self.changed);
        if changed == 0 {
            return Vec::new();
        }
        self.all()
            .filter(|second| changed >> slot(second.t) & 1 == 1)
            .collect()
    }

    fn clear(&mut self, now_s: i64) {
        self.newest = now_s;
        for t in now_s - SECONDS as i64 + 1..=now_s {
            self.slots[slot(t)] = empty(t);
        }
        self.changed = (1 << SECONDS) - 1;
    }
}

fn slot(t: i64) -> usize {
    t.rem_euclid(SECONDS as i64) as usize
}

const fn empty(t: i64) -> SecondView {
    SecondView {
        t,
        accepted: 0,
        flagged: 0,
        blocked: 0,
        got_in: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_count_in_their_own_second_and_are_sent_again() {
        let mut series = Series::new(1_000);
        series.take_changed();
        series.advance(1_001);
        series.add(1_000, Count::Blocked);
        let changed = series.take_changed();
        assert_eq!(
            changed
                .iter()
                .map(|second| (second.t, second.blocked))
                .collect::<Vec<_>>(),
            [(1_000, 1), (1_001, 0)]
        );
        assert!(series.take_changed().is_empty());
    }

    #[test]
    fn events_outside_the_window_are_not_lost() {
        let mut series = Series::new(1_000);
        series.add(1, Count::Accepted);
        series.add(5_000, Count::Accepted);
        assert_eq!(series.last(1).next().unwrap().accepted, 2);
    }

    #[test]
    fn seconds_are_whole_after_a_gap_and_after_the_clock_is_set_back() {
        let mut series = Series::new(1_000);
        series.add(1_000, Count::Accepted);
        series.advance(1_050);
        assert_eq!(series.all().map(|second| second.accepted).sum::<u32>(), 1);
        for now_s in [9_000, 2_000] {
            series.advance(now_s);
            let seconds: Vec<_> = series.all().collect();
            assert_eq!(seconds.len(), SECONDS);
            assert!(seconds.windows(2).all(|pair| pair[1].t == pair[0].t + 1));
            assert_eq!(seconds.last().unwrap().t, now_s);
            assert_eq!(series.all().map(|second| second.accepted).sum::<u32>(), 0);
        }
        series.advance(1_999);
        assert_eq!(
            series.last(1).next().unwrap().t,
            2_000,
            "a step back by a second changes nothing"
        );
    }
}
