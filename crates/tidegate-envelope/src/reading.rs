//! What a sensor measured.

#[cfg(feature = "alloc")]
use crate::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
#[cfg(feature = "alloc")]
use crate::time::Timestamp;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
#[cfg(feature = "alloc")]
use compact_str::CompactString;

/// Most channels that one message may carry.
pub const MAX_CHANNELS: usize = 32;
/// Longest name of a channel, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 48;

/// Measured values by channel name, wherever they lie: each name once, sorted, values finite.
pub trait SortedChannels {
    /// Names and values, sorted by name.
    fn sorted(&self) -> impl Iterator<Item = (&str, f64)>;
}

/// The measured values of one message by channel name, sorted by name; at most [`MAX_CHANNELS`].
///
/// Water channels: `pressure_upstream`, `pressure_downstream` in PSI, `flow_rate` in L/min,
/// `gate_a_position`, `gate_b_position` in percent open.
#[cfg(feature = "alloc")]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Channels(Vec<(CompactString, f64)>);

/// Measured values in a list that grows: there are none without an allocator, but for
/// [`ChannelSlice`].
#[cfg(not(feature = "alloc"))]
#[derive(Debug, Clone, PartialEq)]
pub enum Channels {}

#[cfg(feature = "alloc")]
impl Channels {
    /// Sorts `values` by name. `None` when there are too many, a name is too long, a name stands
    /// twice, or a value is not finite.
    #[must_use]
    pub fn new(mut values: Vec<(CompactString, f64)>) -> Option<Self> {
        if values.len() > MAX_CHANNELS {
            return None;
        }
        // Most messages come sorted, and looking is cheaper than sorting.
        if !rising(&values) {
            values.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if !rising(&values) {
                return None;
            }
        }
        sound(&values).then_some(Self(values))
    }

    /// The value of one channel.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .ok()
            .map(|i| self.0[i].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// How many channels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no channel is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl SortedChannels for Channels {
    #[cfg(feature = "alloc")]
    fn sorted(&self) -> impl Iterator<Item = (&str, f64)> {
        self.iter()
    }

    #[cfg(not(feature = "alloc"))]
    fn sorted(&self) -> impl Iterator<Item = (&str, f64)> {
        match *self {}
        #[expect(unreachable_code, reason = "says what type the iterator has")]
        core::iter::empty()
    }
}

/// Measured values that the caller keeps, for a device without an allocator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelSlice<'a>(&'a [(&'a str, f64)]);

impl<'a> ChannelSlice<'a> {
    /// Sorts `values` by name where they lie. `None` as for [`Channels`]: too many, too long a
    /// name, a name that stands twice, or a value that is not finite.
    #[must_use]
    pub fn new(values: &'a mut [(&'a str, f64)]) -> Option<Self> {
        if values.len() > MAX_CHANNELS {
            return None;
        }
        // By insertion: the general sort takes some KiB of code, for 32 values at most.
        for end in 1..values.len() {
            let mut place = end;
            while place > 0 && values[place - 1].0 > values[place].0 {
                values.swap(place - 1, place);
                place -= 1;
            }
        }
        (rising(values) && sound(values)).then_some(Self(values))
    }
}

impl SortedChannels for ChannelSlice<'_> {
    fn sorted(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().copied()
    }
}

fn rising<N: Ord>(values: &[(N, f64)]) -> bool {
    values.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

fn sound(values: &[(impl AsRef<str>, f64)]) -> bool {
    values
        .iter()
        .all(|(name, value)| value.is_finite() && name.as_ref().len() <= MAX_CHANNEL_BYTES)
}

#[cfg(feature = "alloc")]
/// One parsed message. Whether it may be believed is said by the stage type around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The `device_id` it carries, if any.
    pub device: Option<MessageDeviceId>,
    /// When the device measured, as the device says.
    pub timestamp: Option<Timestamp>,
    /// Its sequence number; always there in a signed message.
    pub sequence: Option<Sequence>,
    /// The publisher's start counter, where it keeps one.
    pub boot: Option<Boot>,
    /// The key epoch it names, where it names one.
    pub epoch: Option<KeyEpoch>,
    /// The status text, empty where there is none; at most 64 bytes are kept.
    pub status: CompactString,
    /// The measured values.
    pub channels: Channels,
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn channels_are_sorted_and_a_name_that_stands_twice_is_refused() {
        let channels = Channels::new(vec![("b".into(), 1.0), ("a".into(), 2.0)]).unwrap();
        let sorted: Vec<_> = channels.iter().collect();
        assert_eq!(sorted, [("a", 2.0), ("b", 1.0)]);
        assert_eq!((channels.get("b"), channels.get("c")), (Some(1.0), None));
        for twice in [["a", "a"], ["b", "b"]] {
            let values = [twice[0], "c", "aa", twice[1]].map(|name| (name.into(), 1.0));
            assert_eq!(Channels::new(values.into()), None);
        }
    }

    #[test]
    fn values_that_are_not_finite_and_names_that_are_too_long_are_refused() {
        assert!(Channels::new(vec![("a".into(), f64::MAX)]).is_some());
        assert_eq!(Channels::new(vec![("a".into(), f64::INFINITY)]), None);
        assert_eq!(Channels::new(vec![("a".into(), f64::NAN)]), None);
        let name = |bytes: usize| "a".repeat(bytes).into();
        assert!(Channels::new(vec![(name(MAX_CHANNEL_BYTES), 1.0)]).is_some());
        assert_eq!(Channels::new(vec![(name(MAX_CHANNEL_BYTES + 1), 1.0)]), None);
    }

    #[test]
    fn slice_is_sorted_and_refused_as_channels_are() {
        let mut values = [("b", 1.0), ("c", 3.0), ("a", 2.0)];
        let sorted: Vec<_> = ChannelSlice::new(&mut values).unwrap().0.into();
        assert_eq!(sorted, [("a", 2.0), ("b", 1.0), ("c", 3.0)]);
        assert_eq!(ChannelSlice::new(&mut [("b", 1.0), ("a", 1.0), ("b", 1.0)]), None);
        assert_eq!(ChannelSlice::new(&mut [("a", f64::NAN)]), None);
        assert_eq!(ChannelSlice::new(&mut [("a", f64::NEG_INFINITY)]), None);
        let name = "a".repeat(MAX_CHANNEL_BYTES + 1);
        assert!(ChannelSlice::new(&mut [(&name[1..], 1.0)]).is_some());
        assert_eq!(ChannelSlice::new(&mut [(name.as_str(), 1.0)]), None);
        let names: Vec<_> = (0..=MAX_CHANNELS).map(|i| alloc::format!("{i}")).collect();
        let mut values: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        assert_eq!(ChannelSlice::new(&mut values.clone()), None);
        assert!(ChannelSlice::new(&mut values[1..]).is_some());
    }
}
