//! Signed messages that wait for the broker: bounded, with a policy for what gives way.

use super::config::Overflow;
use super::event::{Dropped, Event, Events};
use super::message::Message;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_envelope::id::Sequence;
use tokio::sync::Notify;
use tokio::time::Instant;

/// One signed message.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    pub(super) message: Message,
    pub(super) queued: Instant,
}

/// Messages in the order of their sequence numbers.
#[derive(Debug)]
pub(super) struct Queue {
    entries: Mutex<VecDeque<Entry>>,
    capacity: usize,
    overflow: Overflow,
    max_age: Option<Duration>,
    /// Woken when an entry comes.
    pub(super) filled: Notify,
}

impl Queue {
    pub(super) fn new(capacity: usize, overflow: Overflow, max_age: Option<Duration>) -> Self {
        Self {
            entries: Mutex::default(),
            capacity: capacity.max(1),
            overflow,
            max_age,
            filled: Notify::new(),
        }
    }

    /// Whether a new message must be refused.
    pub(super) fn refuses(&self) -> bool {
        self.overflow == Overflow::Refuse && self.lock().len() >= self.capacity
    }

    /// Takes a new message; what gives way for it, if anything must, is reported.
    pub(super) fn push(&self, entry: Entry, events: &Events) {
        let mut entries = self.lock();
        entries.push_back(entry);
        self.trim(&mut entries, events);
        drop(entries);
        self.filled.notify_one();
    }

    /// Puts a message back that was sent and never acknowledged, in its place.
    pub(super) fn put_back(&self, entry: Entry, events: &Events) {
        let mut entries = self.lock();
        let place = entries.partition_point(|other| other.sequence < entry.sequence);
        entries.insert(place, entry);
        self.trim(&mut entries, events);
    }

    /// The oldest message that is young enough to be accepted.
    pub(super) fn pop(&self, events: &Events) -> Option<Entry> {
        let mut entries = self.lock();
        while let Some(entry) = entries.pop_front() {
            let young = self
                .max_age
                .is_none_or(|max_age| entry.queued.elapsed() <= max_age);
            if young {
                return Some(entry);
            }
            events.emit(Event::Dropped {
                sequence: entry.sequence,
                why: Dropped::TooOld,
            });
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn trim(&self, entries: &mut VecDeque<Entry>, events: &Events) {
        while entries.len() > self.capacity {
            let gives_way = match self.overflow {
                Overflow::DropOldest => entries.pop_front(),
                Overflow::DropNewest => entries.pop_back(),
                // New ones are refused; what is above the capacity was in flight and comes back.
                Overflow::Refuse => return,
            };
            if let Some(Entry { sequence, .. }) = gives_way {
                events.emit(Event::Dropped {
                    sequence,
                    why: Dropped::QueueFull,
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // No code that holds the lock panics, and the entries are whole after each step.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        let sequence = Sequence::new(number).unwrap();
        Entry {
            sequence,
            message: Message {
                payload: bytes::Bytes::new(),
                mac0: None,
            },
            queued: Instant::now(),
        }
    }

    fn numbers(queue: &Queue, events: &Events) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(events))
            .map(|entry| entry.sequence.get())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn full_queue_drops_the_oldest_and_says_so() {
        let (events, mut received) = Events::new(8);
        let queue = Queue::new(3, Overflow::DropOldest, None);
        for number in 1..=5 {
            queue.push(entry(number), &events);
        }
        assert_eq!(numbers(&queue, &events), [3, 4, 5]);
        for number in 1..=2 {
            let dropped = Event::Dropped {
                sequence: Sequence::new(number).unwrap(),
                why: Dropped::QueueFull,
            };
            assert_eq!(received.try_recv().unwrap(), dropped);
        }
        assert_eq!(events.counts().dropped, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn unacknowledged_messages_return_to_their_place() {
        let (events, _received) = Events::new(8);
        let queue = Queue::new(8, Overflow::DropOldest, None);
        for number in [4, 5] {
            queue.push(entry(number), &events);
        }
        for number in [3, 1, 2] {
            queue.put_back(entry(number), &events);
        }
        assert_eq!(numbers(&queue, &events), [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn message_too_old_to_be_accepted_is_not_sent() {
        let (events, _received) = Events::new(8);
        let queue = Queue::new(8, Overflow::DropOldest, Some(Duration::from_secs(25)));
        queue.push(entry(1), &events);
        tokio::time::advance(Duration::from_secs(20)).await;
        queue.push(entry(2), &events);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(numbers(&queue, &events), [2]);
        assert_eq!(events.counts().dropped, 1);
    }
}
