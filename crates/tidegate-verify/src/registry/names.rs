//! Finding a device by one of its names.
//!
//! The table holds positions and no names: the name is compared where it stands, in the entry that
//! the message needs next anyway. A second copy of three names would cost 150 bytes a device. Half
//! of each name's hash stands beside its position, so that the entry can be fetched before anything
//! is compared.

use super::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use tidegate_envelope::id::DeviceIndex;

/// Which of its names.
type Name = fn(&Entry) -> &str;

/// The positions of all entries by one of their names.
///
/// Names come from whoever writes the registry, so nobody can choose them to collide; what comes
/// from outside is only looked up. The hash's seed is drawn once, here, and decides nothing.
#[derive(Debug)]
pub(super) struct Names<S = DefaultHashBuilder> {
    places: HashTable<Place>,
    hasher: S,
    name: Name,
}

#[derive(Debug)]
struct Place {
    half_hash: u32,
    index: DeviceIndex,
}

impl<S: BuildHasher + Default> Names<S> {
    /// The table, or the first entry whose name an earlier one has too.
    pub(super) fn of(entries: &[Entry], name: Name) -> Result<Self, &Entry> {
        let mut names = Self {
            places: HashTable::with_capacity(entries.len()),
            hasher: S::default(),
            name,
        };
        for (position, entry) in (0..).zip(entries) {
            if names.find(name(entry), entries).is_some() {
                return Err(entry);
            }
            let hash = names.hasher.hash_one(name(entry));
            let place = Place {
                half_hash: half(hash),
                index: DeviceIndex(position),
            };
            let rehash = |place: &Place| names.hasher.hash_one(name(&entries[place.index.0 as usize]));
            names.places.insert_unique(hash, place, rehash);
        }
        Ok(names)
    }

    /// The entry of this name among those that the table was made of.
    pub(super) fn find(&self, name: &str, entries: &[Entry]) -> Option<DeviceIndex> {
        let hash = self.hasher.hash_one(name);
        let is_it = |place: &Place| {
            place.half_hash == half(hash) && (self.name)(&entries[place.index.0 as usize]) == name
        };
        self.places.find(hash, is_it).map(|place| place.index)
    }

    /// The entry that most likely has this name, if one has it at all. Looks at no entry.
    pub(super) fn guess(&self, name: &str) -> Option<DeviceIndex> {
        let hash = self.hasher.hash_one(name);
        let may_be_it = |place: &Place| place.half_hash == half(hash);
        self.places.find(hash, may_be_it).map(|place| place.index)
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.places.allocation_size()
    }
}

/// The lower half: the table takes its own bits of the hash from both ends.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
fn half(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device, with_devices};
    use std::hash::{BuildHasherDefault, Hasher};

    /// Gives every name the same hash.
    #[derive(Debug, Default)]
    struct Alike;

    impl Hasher for Alike {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            7
        }
    }

    #[test]
    fn name_is_found_by_itself_and_not_by_its_hash() {
        let registry = with_devices(vec![device(1), device(2)]);
        let entries = registry.devices();
        let of_id: Name = |entry| entry.id.as_str();
        let names = Names::<BuildHasherDefault<Alike>>::of(entries, of_id).unwrap();
        for (name, place) in [("device-001", 0), ("device-002", 1)] {
            assert_eq!(names.find(name, entries), Some(DeviceIndex(place)));
        }
        assert_eq!(names.find("device-003", entries), None);
    }
}
