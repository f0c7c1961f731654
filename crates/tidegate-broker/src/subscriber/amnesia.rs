//! What a gateway remembers of its session after a restart: nothing, and that is enough.
//!
//! The client library lets a session whose client half is lost only receive. But a gateway that
//! has just started must be able to subscribe, since the session may be one that a crash cut off
//! before it had, and to answer questions. Its half of the session is answers and subscriptions
//! under way; losing one costs a device one more question. So it says that it remembers: nothing.

use futures_util::future::BoxFuture;
use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};

type Done<'a, T> = BoxFuture<'a, Result<T, SessionStoreError>>;

/// A memory that is always there, and always empty.
#[derive(Debug)]
pub(super) struct Amnesia {
    /// As the options say; the client library compares them.
    pub(super) session_expiry_s: u32,
}

impl SessionStore for Amnesia {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Done<'a, Option<PersistedSession>> {
        let nothing = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(self.session_expiry_s),
            outgoing_inflight_upper_limit: None,
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async { Ok(Some(nothing)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Done<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Done<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
