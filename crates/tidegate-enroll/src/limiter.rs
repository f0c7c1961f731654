//! Counts requests and connections against the limits.
//!
//! A bucket is one point in time: when it will be full again (the generic cell rate algorithm).
//! Strangers are counted by address and devices by certificate, so that a flood from one address
//! keeps no device behind the same address from renewing.

use crate::limits::{FAILURE_COST, Limits, Rate};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_envelope::id::DeviceId;

/// Most clients that are told apart at one time; those whose bucket is full again are forgotten.
const MAX_CLIENTS: usize = 16_384;
/// A flood is told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Somebody without a certificate; see [`address`].
    Stranger(IpAddr),
    /// A device, by its certificate.
    Device(DeviceId),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Connections(IpAddr),
    Requests(Client),
}

/// What belongs together for counting: an IPv4 address, or the /64 of an IPv6 address, whose owner
/// has all of it.
pub(crate) fn address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// All buckets, and the places for connections.
#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// When each bucket will be full again; one that is not here is full.
    buckets: HashMap<Key, Instant>,
    strangers: Option<Instant>,
    devices: Option<Instant>,
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
    told: Option<Instant>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limiter: Arc<Limiter>,
    address: IpAddr,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            counted: Mutex::default(),
        }
    }

    /// A place for a connection, if there is one and this address does not come too often.
    pub(crate) fn connect(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Place> {
        let address = address(peer);
        let mut counted = self.counted();
        let here = counted.by_address.get(&address).copied().unwrap_or(0);
        if counted.connections >= self.limits.connections || here >= self.limits.connections_per_address {
            return None;
        }
        counted
            .take(Key::Connections(address), self.limits.connection_rate, now)
            .ok()?;
        counted.connections += 1;
        counted.by_address.insert(address, here + 1);
        Some(Place {
            limiter: Arc::clone(self),
            address,
        })
    }

    /// Whether the client may ask now; if not, after how long.
    pub(crate) fn ask(&self, client: &Client, now: Instant) -> Result<(), Duration> {
        let (own, all) = match client {
            Client::Stranger(_) => (self.limits.address_rate, self.limits.stranger_rate),
            Client::Device(_) => (self.limits.device_rate, self.limits.devices_rate),
        };
        let mut counted = self.counted();
        let shared = match client {
            Client::Stranger(_) => counted.strangers,
            Client::Device(_) => counted.devices,
        };
        // Neither counts unless both have room.
        let shared = drawn(shared, all, now)?;
        counted.take(Key::Requests(client.clone()), own, now)?;
        match client {
            Client::Stranger(_) => counted.strangers = Some(shared),
            Client::Device(_) => counted.devices = Some(shared),
        }
        Ok(())
    }

    /// The client's request was refused. Only its own bucket pays: strangers could otherwise use
    /// up everybody's with few requests.
    pub(crate) fn failed(&self, client: &Client, now: Instant) {
        let rate = match client {
            Client::Stranger(_) => self.limits.address_rate,
            Client::Device(_) => self.limits.device_rate,
        };
        let mut counted = self.counted();
        if let Some(full) = counted.buckets.get_mut(&Key::Requests(client.clone())) {
            let later = (*full).max(now) + interval(rate) * (FAILURE_COST - 1);
            // Nobody is kept waiting longer than it takes to fill an empty bucket.
            *full = later.min(now + span(rate) * 2);
        }
    }

    /// Whether a flood should be told now.
    pub(crate) fn tell(&self, now: Instant) -> bool {
        let mut counted = self.counted();
        let due = counted
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if due {
            counted.told = Some(now);
        }
        due
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn take(&mut self, key: Key, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full = drawn(self.buckets.get(&key).copied(), rate, now)?;
        if self.buckets.len() >= MAX_CLIENTS && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, full| *full > now);
            if self.buckets.len() >= MAX_CLIENTS {
                return Err(interval(rate));
            }
        }
        self.buckets.insert(key, full);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counted = self.limiter.counted();
        counted.connections -= 1;
        if let Some(here) = counted.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counted.by_address.remove(&self.address);
            }
        }
    }
}

/// When a bucket will be full again after one more request, or how long until that one has room.
fn drawn(full: Option<Instant>, rate: Rate, now: Instant) -> Result<Instant, Duration> {
    let full = full.map_or(now, |full| full.max(now)) + interval(rate);
    match (full - now).checked_sub(span(rate)) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => Ok(full),
    }
}

/// Time in which one request comes back.
fn interval(rate: Rate) -> Duration {
    Duration::from_secs(60) / rate.per_minute()
}

/// Time in which an empty bucket fills.
fn span(rate: Rate) -> Duration {
    interval(rate) * rate.burst()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            connections: 3,
            connections_per_address: 2,
            connection_rate: Rate::new(5, 60),
            address_rate: Rate::new(20, 60),
            stranger_rate: Rate::new(30, 60),
            device_rate: Rate::new(2, 60),
            devices_rate: Rate::new(3, 60),
            ..Limits::default()
        }
    }

    fn stranger(last: u8) -> Client {
        Client::Stranger(IpAddr::from([192, 0, 2, last]))
    }

    fn device(id: &str) -> Client {
        Client::Device(DeviceId::new(id).unwrap())
    }

    /// How many of 100 requests at one moment are let through.
    fn let_through(limiter: &Limiter, client: &Client, now: Instant) -> usize {
        (0..100).filter(|_| limiter.ask(client, now).is_ok()).count()
    }

    #[test]
    fn burst_is_let_through_and_after_it_one_request_in_each_interval() {
        let (limiter, start) = (Limiter::new(limits()), Instant::now());
        assert_eq!(let_through(&limiter, &stranger(1), start), 20);
        assert_eq!(limiter.ask(&stranger(1), start), Err(SECOND));
        assert_eq!(let_through(&limiter, &stranger(1), start + SECOND), 1);
        assert_eq!(let_through(&limiter, &stranger(1), start + SECOND * 100), 20);
    }

    #[test]
    fn failures_cost_ten_times_as_much_and_the_wait_after_them_is_bounded() {
        let (limiter, start) = (Limiter::new(limits()), Instant::now());
        let attempts = (0..100).filter(|_| {
            let asked = limiter.ask(&stranger(1), start).is_ok();
            limiter.failed(&stranger(1), start);
            asked
        });
        assert_eq!(attempts.count(), 2);
        let wait = limiter.ask(&stranger(1), start).unwrap_err();
        assert_eq!(wait, SECOND * 21, "the time to fill the bucket, and one request");
        assert_eq!(
            let_through(&limiter, &stranger(2), start),
            20,
            "another address is free"
        );
    }

    #[test]
    fn strangers_share_a_limit_that_devices_do_not_share_with_them() {
        let (limiter, start) = (Limiter::new(limits()), Instant::now());
        let all: usize = (1..=5)
            .map(|last| let_through(&limiter, &stranger(last), start))
            .sum();
        assert_eq!(all, 30);
        assert_eq!(let_through(&limiter, &device("a"), start), 2);
        assert_eq!(let_through(&limiter, &device("b"), start), 1);
    }

    #[test]
    fn request_that_one_limit_refuses_does_not_count_in_the_other() {
        let (limiter, start) = (Limiter::new(limits()), Instant::now());
        assert_eq!(let_through(&limiter, &stranger(1), start), 20);
        // Its 80 refused ones left 10 of the 30.
        assert_eq!(let_through(&limiter, &stranger(2), start), 10);
        // The refused ones of the second left it with 10 of its own 20.
        assert_eq!(let_through(&limiter, &stranger(2), start + SECOND * 10), 10);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_and_mapped_ipv4_is_ipv4() {
        let same = |one: &str, other: &str| address(one.parse().unwrap()) == address(other.parse().unwrap());
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn places_are_bounded_by_address_and_in_all_and_come_back() {
        let (limiter, start) = (Arc::new(Limiter::new(limits())), Instant::now());
        let connect = |last: u8| limiter.connect(IpAddr::from([192, 0, 2, last]), start);
        let (first, second) = (connect(1), connect(1));
        assert!(first.is_some() && second.is_some() && connect(1).is_none());
        let third = connect(2);
        assert!(third.is_some() && connect(3).is_none());
        drop(first);
        assert!(connect(3).is_some());
        drop((second, third));
        assert!(limiter.counted().by_address.is_empty());
    }

    #[test]
    fn address_that_connects_too_often_waits_although_places_are_free() {
        let (limiter, start) = (Arc::new(Limiter::new(limits())), Instant::now());
        let address = IpAddr::from([192, 0, 2, 1]);
        let connected = (0..100).filter(|_| limiter.connect(address, start).is_some());
        assert_eq!(connected.count(), 5);
        assert!(limiter.connect(address, start + SECOND).is_some());
    }

    #[test]
    fn table_of_clients_is_bounded_and_makes_room_for_the_active() {
        let rate = Rate::new(1, 60);
        let (mut counted, start) = (Counted::default(), Instant::now());
        let key = |number: u32| Key::Connections(IpAddr::from(number.to_be_bytes()));
        for number in 0..u32::try_from(MAX_CLIENTS).unwrap() {
            counted.take(key(number), rate, start).unwrap();
        }
        assert_eq!(counted.take(key(u32::MAX), rate, start), Err(SECOND));
        assert_eq!(counted.take(key(u32::MAX), rate, start + SECOND), Ok(()));
        assert_eq!(counted.buckets.len(), 1);
    }

    #[test]
    fn flood_is_told_once_a_second() {
        let (limiter, start) = (Limiter::new(limits()), Instant::now());
        let told = (0..25).filter(|step| limiter.tell(start + Duration::from_millis(100) * *step));
        assert_eq!(told.count(), 3);
    }
}
