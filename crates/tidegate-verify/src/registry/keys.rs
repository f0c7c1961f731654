//! The keys that a device may sign with.

use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::key::{MacKey, Tag};
use tidegate_envelope::reason::Reason;

/// At least one key, by rising epoch. They can be used and not be read.
///
/// The newest lies in the entry itself, since it is the one in use: a device has an older one only
/// while its keys are rotated.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Keys {
    newest: MacKey,
    pub(super) newest_epoch: KeyEpoch,
    /// Oldest first.
    older: Box<[(KeyEpoch, MacKey)]>,
}

/// Why a device's keys are refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// There is none.
    None,
    /// Which of two is the older could not be told.
    Order,
}

impl Keys {
    pub(super) fn new(mut keys: Vec<(KeyEpoch, MacKey)>) -> Result<Self, Unfit> {
        if !keys.is_sorted_by(|(older, _), (newer, _)| older < newer) {
            return Err(Unfit::Order);
        }
        let (newest_epoch, newest) = keys.pop().ok_or(Unfit::None)?;
        Ok(Self {
            newest_epoch,
            newest,
            older: keys.into(),
        })
    }

    /// Check 6: the key of this epoch; `key_retired` below the oldest, else `unknown_key`.
    pub(crate) fn of(&self, epoch: KeyEpoch) -> Result<&MacKey, Reason> {
        if epoch == self.newest_epoch {
            return Ok(&self.newest);
        }
        let oldest = self.older.first().map_or(self.newest_epoch, |(epoch, _)| *epoch);
        let found = self.older.iter().find(|(older, _)| *older == epoch);
        found.map(|(_, key)| key).ok_or(if epoch < oldest {
            Reason::KeyRetired
        } else {
            Reason::UnknownKey
        })
    }

    /// All keys, newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (KeyEpoch, &MacKey)> {
        let older = self.older.iter().rev().map(|(epoch, key)| (*epoch, key));
        std::iter::once((self.newest_epoch, &self.newest)).chain(older)
    }

    /// Check 7 of a message that names no epoch: the first key for which `tag` finds the MAC right.
    /// Newest first, because during a rotation that is the one in use.
    pub(crate) fn any(&self, tag: impl Fn(&MacKey) -> Option<Tag>) -> Option<(KeyEpoch, Tag)> {
        let right = |(epoch, key): (KeyEpoch, &MacKey)| Some((epoch, tag(key)?));
        right((self.newest_epoch, &self.newest)).or_else(|| {
            let older = self.older.iter().rev().map(|(epoch, key)| (*epoch, key));
            older.into_iter().find_map(right)
        })
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(epochs: &[u16]) -> Result<Keys, Unfit> {
        let key = |epoch: u16| MacKey::from_bytes(&epoch.to_be_bytes());
        Keys::new(
            epochs
                .iter()
                .map(|epoch| (KeyEpoch(*epoch), key(*epoch)))
                .collect(),
        )
    }

    /// The epoch of the key that made this MAC.
    fn maker(keys: &Keys, epoch: u16) -> Option<KeyEpoch> {
        let made = MacKey::from_bytes(&epoch.to_be_bytes()).mac(b"m").to_string();
        keys.any(|key| key.verified(b"m", &made)).map(|(epoch, _)| epoch)
    }

    #[test]
    fn epoch_leads_to_its_own_key_and_every_other_is_retired_or_unknown() {
        let keys = keys(&[3, 4, 6]).unwrap();
        for epoch in [3, 4, 6] {
            let expected = MacKey::from_bytes(&u16::to_be_bytes(epoch)).mac(b"m");
            assert_eq!(keys.of(KeyEpoch(epoch)).unwrap().mac(b"m"), expected);
            assert_eq!(maker(&keys, epoch), Some(KeyEpoch(epoch)));
        }
        for (epoch, reason) in [
            (2, Reason::KeyRetired),
            (5, Reason::UnknownKey),
            (7, Reason::UnknownKey),
        ] {
            assert_eq!(keys.of(KeyEpoch(epoch)).err(), Some(reason));
            assert_eq!(maker(&keys, epoch), None);
        }
    }

    #[test]
    fn single_key_retires_what_is_below_it() {
        let keys = keys(&[3]).unwrap();
        assert_eq!(keys.of(KeyEpoch(2)).err(), Some(Reason::KeyRetired));
        assert_eq!(keys.of(KeyEpoch(4)).err(), Some(Reason::UnknownKey));
        assert!(keys.of(KeyEpoch(3)).is_ok());
    }

    #[test]
    fn newest_key_is_tried_first_and_the_oldest_last() {
        let keys = keys(&[3, 4, 6]).unwrap();
        let tried = std::cell::RefCell::new(Vec::new());
        keys.any(|key| {
            tried.borrow_mut().push(key.mac(b"m"));
            None
        });
        let expected = [6_u16, 4, 3].map(|epoch| MacKey::from_bytes(&epoch.to_be_bytes()).mac(b"m"));
        assert_eq!(*tried.borrow(), expected);
    }

    #[test]
    fn keys_must_be_there_and_rise() {
        assert_eq!(keys(&[]).err(), Some(Unfit::None));
        assert_eq!(keys(&[3, 3]).err(), Some(Unfit::Order));
        assert_eq!(keys(&[4, 3]).err(), Some(Unfit::Order));
        assert!(keys(&[3, 4]).is_ok());
    }
}
