//! The last retained message of each topic, within bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;
use tokio::time::Instant;

use crate::filter::matches;
use crate::message::Message;

/// Retained messages by topic.
#[derive(Debug)]
pub(crate) struct Retained {
    kept: Mutex<Kept>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    messages: HashMap<ByteString, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            max_messages,
            max_bytes,
        }
    }

    /// Keeps a message in place of the topic's last one; an empty payload only removes that
    /// (MQTT 5 §3.3.1.3). `false` when there is no room: the last one is removed then too, since
    /// it is no longer the latest.
    pub(crate) fn store(&self, message: &Arc<Message>) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = kept.messages.remove(&message.topic) {
            kept.bytes -= last.cost_bytes();
        }
        if message.payload.is_empty() {
            return true;
        }
        let cost = message.cost_bytes();
        if kept.messages.len() >= self.max_messages || kept.bytes + cost > self.max_bytes {
            return false;
        }
        kept.bytes += cost;
        kept.messages.insert(message.topic.clone(), Arc::clone(message));
        true
    }

    /// The messages that a new subscription to `path` gets.
    pub(crate) fn matching(&self, path: &str) -> Vec<Arc<Message>> {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !path.contains(['+', '#']) {
            return kept.messages.get(path).cloned().into_iter().collect();
        }
        let expired: Vec<ByteString> = kept
            .messages
            .iter()
            .filter(|(_, message)| message.seconds_left(now).is_none())
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in expired {
            if let Some(old) = kept.messages.remove(&topic) {
                kept.bytes -= old.cost_bytes();
            }
        }
        kept.messages
            .values()
            .filter(|message| matches(path, &message.topic))
            .cloned()
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .messages
            .len()
    }
}

#[cfg(test)]
mod tests {
    use rmqtt_codec::types::{Publish, QoS};

    use super::*;

    fn message(topic: &'static str, payload: &'static str) -> Arc<Message> {
        let publish = Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: None,
            payload: payload.into(),
            properties: None,
        };
        Arc::new(Message::new(&publish, 0))
    }

    #[test]
    fn the_last_message_is_kept_and_an_empty_one_removes_it() {
        let retained = Retained::new(10, 1 << 20);
        retained.store(&message("a/b", "1"));
        retained.store(&message("a/b", "2"));
        retained.store(&message("a/c", "3"));
        assert_eq!(retained.matching("a/b")[0].payload, "2");
        assert_eq!(retained.matching("a/+").len(), 2);
        retained.store(&message("a/b", ""));
        assert!(retained.matching("a/b").is_empty());
        assert_eq!(retained.count(), 1);
    }

    #[test]
    fn messages_beyond_the_bounds_are_not_kept() {
        let retained = Retained::new(1, 1 << 20);
        assert!(retained.store(&message("a", "1")));
        assert!(!retained.store(&message("b", "1")));
        assert!(retained.store(&message("a", "2")));
        let small = Retained::new(10, message("a", "1").cost_bytes());
        assert!(small.store(&message("a", "1")));
        assert!(!small.store(&message("b", "1")));
        assert!(!small.store(&message("a", "12")));
        assert!(small.matching("a").is_empty());
    }
}
