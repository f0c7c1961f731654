//! Places for connections: so many in total, and so many from one network address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Counts the places that are taken.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<Taken>,
    freed: Notify,
    max: usize,
    max_per_address: usize,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A taken place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Broker,
    Address,
}

impl Places {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            taken: Mutex::default(),
            freed: Notify::new(),
            max,
            max_per_address,
        }
    }

    /// Takes a place for a connection from `address`.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.max {
            return Err(Full::Broker);
        }
        let here = taken.by_address.entry(address).or_default();
        if *here >= self.max_per_address {
            return Err(Full::Address);
        }
        *here += 1;
        taken.total += 1;
        Ok(Place {
            places: Arc::clone(self),
            address,
        })
    }

    /// Waits until some connection gives its place back, and with it its file descriptor.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    pub(crate) fn total(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
        drop(taken);
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_address_leaves_places_for_others_until_all_are_taken() {
        let places = Arc::new(Places::new(3, 2));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert_eq!(places.take(a).unwrap_err(), Full::Address);
        let _third = places.take(b).unwrap();
        assert_eq!(places.take(b).unwrap_err(), Full::Broker);
        drop(first);
        assert!(places.take(a).is_ok());
    }
}
