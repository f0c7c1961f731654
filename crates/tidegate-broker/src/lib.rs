//! The embedded MQTT broker: listeners, TLS, access control, sessions and routing.
//!
//! MQTT 3.1.1 and 5 on the same port, over TCP or TLS. A message goes `door` (socket, TLS,
//! deadlines) → `connect` (identity, rights, session) → `connection` → `publish` (access
//! control, the [`Gate`]) → `router` → `mailbox` → `deliver`. One task per connection does
//! all of that; tasks meet only in the router, which publishers read from memory of their own,
//! and in the mailboxes, which are bounded and never waited for: a subscriber that does not read is
//! cut off when its mailbox is full. While one that does read is being outrun, its publishers read
//! their own sockets only every 10 ms.
//!
//! **Invariant**: a publish is acknowledged, and shown to subscribers, only after the gate said
//! [`Disposition::Deliver`] (a question is acknowledged with [`Disposition::Reply`], and shown to nobody); everything that a client can make the broker keep or wait for has a
//! bound in [`Limits`] or a named constant.

mod acl;
mod broker;
mod config;
mod connect;
mod connection;
mod deliver;
mod descriptors;
mod door;
mod end;
mod events;
mod filter;
mod gate;
mod info;
mod limits;
mod mailbox;
mod message;
pub mod mosquitto;
mod publish;
mod rates;
mod retained;
mod router;
mod session;
mod sessions;
mod shared;
mod subscribe;
pub mod subscriber;
mod tls;
mod turn;
mod wire;

pub use acl::{Access, PatternError, SegmentLookup, TopicPattern, TopicRules};
pub use broker::{Broker, BrokerError, Handle, Stats};
pub use config::{BrokerConfig, Limits, Listener, Transport};
pub use gate::{
    Disposition, Gate, Incoming, MAX_USER_PROPERTIES, MAX_USER_PROPERTY_BYTES, Reply, SecurityEvent,
};
pub use info::{SessionInfo, TlsInfo};
