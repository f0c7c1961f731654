//! The sessions that clients of a server may resume: no longer than its revocation lists are good.

use super::SESSION_CACHE;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use std::sync::Arc;
use tidegate_envelope::time::Timestamp;

/// A store that is empty from `until` on.
///
/// TLS looks at certificate and lists in a full handshake only. Without this bound a client would
/// resume past the time at which the lists refuse everybody; with it, a client makes one full
/// handshake more than it has to.
pub(super) fn store(until: Option<Timestamp>, now: fn() -> Timestamp) -> Arc<dyn StoresServerSessions> {
    let sessions = ServerSessionMemoryCache::new(SESSION_CACHE);
    match until {
        None => sessions,
        Some(until) => Arc::new(Bounded { sessions, until, now }),
    }
}

#[derive(Debug)]
struct Bounded {
    sessions: Arc<ServerSessionMemoryCache>,
    until: Timestamp,
    now: fn() -> Timestamp,
}

impl Bounded {
    fn is_open(&self) -> bool {
        (self.now)() < self.until
    }
}

impl StoresServerSessions for Bounded {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.is_open() && self.sessions.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(key).filter(|_| self.is_open())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(key).filter(|_| self.is_open())
    }

    fn can_cache(&self) -> bool {
        self.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn sessions_are_resumed_until_the_lists_expire_and_not_after() {
        static CLOCK: AtomicI64 = AtomicI64::new(9);
        let now = || Timestamp::from_micros(CLOCK.load(Ordering::Relaxed));
        let bounded = store(Some(Timestamp::from_micros(10)), now);
        let (key, value) = (vec![1], vec![2]);
        assert!(bounded.can_cache() && bounded.put(key.clone(), value.clone()));
        assert_eq!(bounded.get(&key), Some(value.clone()));
        CLOCK.store(10, Ordering::Relaxed);
        assert_eq!(bounded.get(&key), None);
        assert!(!bounded.can_cache() && !bounded.put(vec![3], value.clone()));
        let free = store(None, now);
        assert!(free.put(key.clone(), value.clone()));
        assert_eq!(free.take(&key), Some(value));
    }
}
