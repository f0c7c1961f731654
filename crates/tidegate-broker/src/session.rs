//! What a client and the broker know of each other beyond one connection.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hasher;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;

use bytestring::ByteString;
use futures_util::task::AtomicWaker;
use rmqtt_codec::types::QoS;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tokio::time::Instant;

use crate::info::TlsInfo;
use crate::mailbox::Mailbox;
use crate::message::Delivery;
use crate::wire::Will;

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique among all sessions of this process.
    pub(crate) key: u64,
    pub(crate) client_id: ByteString,
    /// Whose it is; anybody else with the same client id has another.
    pub(crate) principal: Arc<Principal>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Held by the client's connection for as long as it lives.
    pub(crate) flow: Arc<tokio::sync::Mutex<Flow>>,
    pub(crate) presence: Mutex<Presence>,
}

/// Who holds the session at this moment, and what happens when nobody does. Its lock is taken
/// under the lock of the session table, never the other way round.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) leash: Option<Arc<Leash>>,
    pub(crate) ends_at: Option<Instant>,
    /// When it is due, and the will.
    pub(crate) will: Option<(Instant, LateWill)>,
}

/// A will that outlives its connection.
#[derive(Debug)]
pub(crate) struct LateWill {
    pub(crate) will: Will,
    /// The connection that left it: its certificate may be revoked before the will is due.
    pub(crate) leash: Arc<Leash>,
}

/// Deliveries and acknowledgements in progress.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Filters as the client wrote them.
    pub(crate) subscriptions: HashSet<ByteString>,
    pub(crate) outgoing: Outgoing,
    /// Packet ids of publishes with QoS 2 that were taken and not yet released.
    pub(crate) received: HashMap<NonZeroU16, Taken>,
    /// The session ended with its last connection: whoever comes next starts a new one.
    pub(crate) ended: bool,
}

/// How far an incoming publish of QoS 2 has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The gate has it.
    Pending,
    /// PUBREC was sent.
    Acknowledged,
}

/// Publishes to the client that it has not finished acknowledging.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    in_flight: VecDeque<InFlight>,
    /// Deliveries started so far.
    next: u64,
}

#[derive(Debug)]
struct InFlight {
    /// Which delivery in turn it is; its packet id follows from it.
    number: u64,
    packet_id: NonZeroU16,
    /// `None` once PUBREC came: only the release is to be repeated.
    delivery: Option<Delivery>,
}

impl Outgoing {
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Notes a delivery of QoS 1 or 2, and gives it a packet id that is not in use.
    pub(crate) fn start(&mut self, delivery: Delivery) -> NonZeroU16 {
        loop {
            let number = self.next;
            self.next += 1;
            // Ids are given in turn, so only a delivery 65,535 turns old can still hold this one.
            let oldest = self.in_flight.front().map_or(number, |one| one.number);
            let id = u16::try_from(number % u64::from(u16::MAX))
                .unwrap_or(0)
                .saturating_add(1);
            let packet_id = NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN);
            let lapped = number - oldest >= u64::from(u16::MAX);
            if lapped && self.in_flight.iter().any(|one| one.packet_id == packet_id) {
                continue;
            }
            self.in_flight.push_back(InFlight {
                number,
                packet_id,
                delivery: Some(delivery),
            });
            return packet_id;
        }
    }

    /// PUBACK: a delivery of QoS 1 is over. `false` when there is none with this id.
    pub(crate) fn finish(&mut self, packet_id: NonZeroU16) -> bool {
        self.remove(packet_id, QoS::AtLeastOnce)
    }

    /// PUBREC with a failure: the client does not want a delivery of QoS 2.
    pub(crate) fn refuse(&mut self, packet_id: NonZeroU16) -> bool {
        self.remove(packet_id, QoS::ExactlyOnce)
    }

    fn remove(&mut self, packet_id: NonZeroU16, qos: QoS) -> bool {
        let same = |one: &InFlight| {
            one.packet_id == packet_id && one.delivery.as_ref().is_some_and(|delivery| delivery.qos == qos)
        };
        self.in_flight
            .iter()
            .position(same)
            .is_some_and(|at| self.in_flight.remove(at).is_some())
    }

    /// PUBREC: the client has the message.
    pub(crate) fn receive(&mut self, packet_id: NonZeroU16) -> bool {
        let found = self.in_flight.iter_mut().find(|one| {
            one.packet_id == packet_id
                && one
                    .delivery
                    .as_ref()
                    .is_none_or(|given| given.qos == QoS::ExactlyOnce)
        });
        found.is_some_and(|one| {
            one.delivery = None;
            true
        })
    }

    /// PUBCOMP: the client has forgotten the packet id.
    pub(crate) fn complete(&mut self, packet_id: NonZeroU16) {
        let same = |one: &InFlight| one.packet_id == packet_id && one.delivery.is_none();
        if let Some(at) = self.in_flight.iter().position(same) {
            self.in_flight.remove(at);
        }
    }

    /// A delivery that was not sent after all.
    pub(crate) fn forget(&mut self, packet_id: NonZeroU16) {
        self.in_flight.retain(|one| one.packet_id != packet_id);
    }

    /// What a client that comes back is sent again, in order: the delivery, or `None` for its release.
    pub(crate) fn unfinished(&self) -> Vec<(NonZeroU16, Option<Delivery>)> {
        self.in_flight
            .iter()
            .map(|one| (one.packet_id, one.delivery.clone()))
            .collect()
    }
}

/// What somebody else wants a connection to do: end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Another connection took over the client id.
    TakeOver,
    /// The connection is to be closed, for this reason; its session is kept or not.
    Close { reason: Reason, keep_session: bool },
    /// The broker stops.
    ShutDown,
}

/// What others may want to know of a connection.
#[derive(Debug)]
pub(crate) struct About {
    /// Serial number of the connection's certificate; empty where there is none.
    pub(crate) serial: Box<[u8]>,
    pub(crate) peer: SocketAddr,
    pub(crate) since: Timestamp,
    pub(crate) tls: Option<TlsInfo>,
}

/// Ends one connection from outside. The first order counts.
#[derive(Debug)]
pub(crate) struct Leash {
    pub(crate) about: About,
    order: OnceLock<Order>,
    connection: AtomicWaker,
}

impl Leash {
    pub(crate) fn new(about: About) -> Self {
        Self {
            about,
            order: OnceLock::new(),
            connection: AtomicWaker::new(),
        }
    }

    pub(crate) fn pull(&self, order: Order) {
        if self.order.set(order).is_ok() {
            self.connection.wake();
        }
    }

    pub(crate) fn order(&self) -> Option<Order> {
        self.order.get().copied()
    }

    /// The order, or `waker` is woken when there is one.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Order> {
        self.connection.register(waker);
        self.order()
    }
}

/// Hash of principal and client id (FNV-1a, 64 bits): the same for a client that comes back, in
/// every run of the process, which the standard library's hashers do not promise.
pub(crate) fn stable_id(principal: &Principal, client_id: &str) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let (kind, name) = match principal {
        Principal::Anonymous => (0, ""),
        Principal::Broker => (1, ""),
        Principal::Certificate {
            id,
            role: Role::Device,
        } => (2, id.as_str()),
        Principal::Certificate {
            id,
            role: Role::Gateway,
        } => (3, id.as_str()),
        Principal::Certificate {
            id,
            role: Role::Operator,
        } => (4, id.as_str()),
    };
    hash.write(&[kind]);
    hash.write(name.as_bytes());
    hash.write(&[0]);
    hash.write(client_id.as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::types::Publish;

    use super::*;
    use crate::message::Message;

    impl Default for Leash {
        fn default() -> Self {
            Self::new(About {
                serial: Box::default(),
                peer: ([127, 0, 0, 1], 1).into(),
                since: Timestamp::from_micros(0),
                tls: None,
            })
        }
    }

    fn delivery(qos: QoS) -> Delivery {
        let publish = Publish {
            dup: false,
            retain: false,
            qos,
            topic: "t".into(),
            packet_id: None,
            payload: "p".into(),
            properties: None,
        };
        Delivery {
            message: Arc::new(Message::new(&publish, 0)),
            qos,
            retain: false,
            ids: None,
        }
    }

    #[test]
    fn packet_ids_in_use_are_skipped_and_zero_is_never_given() {
        let mut outgoing = Outgoing::default();
        let kept = outgoing.start(delivery(QoS::AtLeastOnce));
        for _ in 0..u16::MAX {
            let id = outgoing.start(delivery(QoS::AtLeastOnce));
            assert_ne!(id, kept);
            assert!(outgoing.finish(id));
        }
        assert_eq!(outgoing.len(), 1);
    }

    #[test]
    fn each_acknowledgement_ends_only_deliveries_of_its_kind() {
        let mut outgoing = Outgoing::default();
        let once = outgoing.start(delivery(QoS::AtLeastOnce));
        let twice = outgoing.start(delivery(QoS::ExactlyOnce));
        assert!(!outgoing.receive(once));
        assert!(!outgoing.finish(twice));
        outgoing.complete(twice);
        assert_eq!(outgoing.len(), 2);
        assert!(outgoing.receive(twice));
        assert!(outgoing.receive(twice), "a repeated PUBREC is answered again");
        outgoing.complete(twice);
        assert!(outgoing.finish(once));
        assert_eq!(outgoing.len(), 0);
    }

    #[test]
    fn the_stable_id_tells_principals_and_client_ids_apart() {
        let device = |id: &str| Principal::Certificate {
            id: tidegate_envelope::id::DeviceId::new(id).unwrap(),
            role: Role::Device,
        };
        assert_eq!(stable_id(&device("a"), "c"), stable_id(&device("a"), "c"));
        assert_ne!(stable_id(&device("a"), "c"), stable_id(&device("b"), "c"));
        assert_ne!(stable_id(&device("a"), "c"), stable_id(&device("a"), "d"));
        assert_ne!(stable_id(&device("a"), "bc"), stable_id(&device("ab"), "c"));
        assert_ne!(
            stable_id(&Principal::Anonymous, "c"),
            stable_id(&Principal::Broker, "c")
        );
    }

    #[test]
    fn only_the_first_order_counts() {
        let leash = Leash::default();
        leash.pull(Order::Close {
            reason: Reason::SessionClosedRevoked,
            keep_session: false,
        });
        leash.pull(Order::TakeOver);
        assert_eq!(
            leash.order(),
            Some(Order::Close {
                reason: Reason::SessionClosedRevoked,
                keep_session: false
            })
        );
    }
}
