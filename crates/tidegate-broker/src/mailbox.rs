//! What waits for one client: a bounded queue that publishers fill without ever waiting.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rmqtt_codec::types::QoS;
use tokio::time::Instant;

use crate::message::Delivery;

/// A reader that took something this recently is outrun, not stuck.
const STILL_READING: Duration = Duration::from_millis(100);

/// The queue, filled by every publisher's connection and emptied by the client's own.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    /// The client's connection; woken when the queue stops being empty.
    reader: AtomicWaker,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    attached: bool,
    /// When the reader last took something while more than half of the room was taken.
    drained: Option<Instant>,
    /// A message of QoS 1 or 2 found no room: the client has lost it, and is to be cut off.
    overflowed: bool,
}

impl Mailbox {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            max_messages,
            max_bytes,
        }
    }

    /// Adds a message, if there is room and, for QoS 0, somebody connected.
    pub(crate) fn push(&self, delivery: Delivery) -> Pushed {
        let cost = delivery.message.cost_bytes();
        let mut queue = self.lock();
        let at_most_once = delivery.qos == QoS::AtMostOnce;
        if at_most_once && !queue.attached {
            return Pushed::Dropped;
        }
        let full = queue.waiting.len() >= self.max_messages || queue.bytes + cost > self.max_bytes;
        if full {
            if !at_most_once && queue.attached && !queue.overflowed {
                queue.overflowed = true;
                drop(queue);
                self.reader.wake();
            }
            return Pushed::Dropped;
        }
        let was_empty = queue.waiting.is_empty();
        queue.bytes += cost;
        queue.waiting.push_back(delivery);
        // A reader that left messages behind waits for its socket or its window, not for us.
        let wake = was_empty && queue.attached;
        let pressed =
            self.is_half_full(&queue) && queue.drained.is_some_and(|at| at.elapsed() < STILL_READING);
        drop(queue);
        if wake {
            self.reader.wake();
        }
        if pressed { Pushed::Pressed } else { Pushed::Queued }
    }

    fn is_half_full(&self, queue: &Queue) -> bool {
        queue.waiting.len() > self.max_messages / 2 || queue.bytes > self.max_bytes / 2
    }

    /// Adds a message if there is room; cuts nobody off. For retained messages, which one
    /// subscription may bring in any number.
    pub(crate) fn push_if_room(&self, delivery: Delivery) -> Pushed {
        let cost = delivery.message.cost_bytes();
        let queue = self.lock();
        let room = queue.waiting.len() < self.max_messages && queue.bytes + cost <= self.max_bytes;
        drop(queue);
        if room {
            self.push(delivery)
        } else {
            Pushed::Dropped
        }
    }

    /// Moves messages into `batch` from the front, while `take` says so. An error when the client is to be cut off.
    pub(crate) fn drain(
        &self,
        batch: &mut Vec<Delivery>,
        mut take: impl FnMut(&Delivery) -> bool,
    ) -> Result<(), Overflow> {
        let mut queue = self.lock();
        if self.is_half_full(&queue) {
            queue.drained = Some(Instant::now());
        }
        while let Some(next) = queue.waiting.front() {
            if !take(next) {
                break;
            }
            queue.bytes -= next.message.cost_bytes();
            batch.extend(queue.waiting.pop_front());
        }
        if queue.overflowed { Err(Overflow) } else { Ok(()) }
    }

    /// Has `waker` woken when there is something to drain.
    pub(crate) fn register(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// A connection has come: messages of QoS 0 are taken from now on.
    pub(crate) fn attach(&self) {
        let mut queue = self.lock();
        queue.attached = true;
        queue.overflowed = false;
    }

    /// The connection has gone: what a disconnected client is not owed is dropped.
    pub(crate) fn detach(&self) {
        let mut queue = self.lock();
        queue.attached = false;
        queue.waiting.retain(|delivery| delivery.qos != QoS::AtMostOnce);
        queue.waiting.shrink_to_fit();
        queue.bytes = queue
            .waiting
            .iter()
            .map(|delivery| delivery.message.cost_bytes())
            .sum();
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.lock().attached
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, among so many that its sender should go a little slower: the reader is reading.
    Pressed,
    /// There was no room, or nobody who would have it.
    Dropped,
}

/// The client was too slow for its messages of QoS 1 and 2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rmqtt_codec::types::Publish;

    use super::*;
    use crate::message::Message;

    fn delivery(qos: QoS) -> Delivery {
        let publish = Publish {
            dup: false,
            retain: false,
            qos,
            topic: "t".into(),
            packet_id: None,
            payload: vec![0; 100].into(),
            properties: None,
        };
        Delivery {
            message: Arc::new(Message::new(&publish, 0)),
            qos,
            retain: false,
            ids: None,
        }
    }

    fn drained(mailbox: &Mailbox) -> Result<usize, Overflow> {
        let mut batch = Vec::new();
        mailbox.drain(&mut batch, |_| true).map(|()| batch.len())
    }

    #[test]
    fn a_full_box_drops_qos_0_and_cuts_off_for_qos_1() {
        let mailbox = Mailbox::new(2, 1 << 20);
        mailbox.attach();
        assert_ne!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_ne!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_eq!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_eq!(drained(&mailbox), Ok(2));
        assert_ne!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_ne!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_eq!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_eq!(drained(&mailbox), Err(Overflow));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let cost = delivery(QoS::AtLeastOnce).message.cost_bytes();
        let mailbox = Mailbox::new(100, 2 * cost);
        mailbox.attach();
        assert_ne!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_ne!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_eq!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
    }

    #[test]
    fn a_disconnected_client_keeps_only_qos_1_and_2() {
        let mailbox = Mailbox::new(10, 1 << 20);
        mailbox.attach();
        mailbox.push(delivery(QoS::AtMostOnce));
        mailbox.push(delivery(QoS::ExactlyOnce));
        mailbox.detach();
        assert_eq!(mailbox.push(delivery(QoS::AtMostOnce)), Pushed::Dropped);
        assert_ne!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_eq!(drained(&mailbox), Ok(2));
    }

    #[test]
    fn retained_messages_beyond_the_room_cut_nobody_off() {
        let mailbox = Mailbox::new(1, 1 << 20);
        mailbox.attach();
        assert_ne!(mailbox.push_if_room(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_eq!(mailbox.push_if_room(delivery(QoS::AtLeastOnce)), Pushed::Dropped);
        assert_eq!(drained(&mailbox), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn senders_are_slowed_for_a_reader_that_is_outrun_but_not_for_one_that_is_stuck() {
        let mailbox = Mailbox::new(8, 1 << 20);
        mailbox.attach();
        for _ in 0..5 {
            assert_eq!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Queued);
        }
        let mut one = 1;
        let mut batch = Vec::new();
        let taken = mailbox.drain(&mut batch, |_| std::mem::take(&mut one) > 0);
        assert_eq!((taken, batch.len()), (Ok(()), 1));
        assert_eq!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Pressed);
        tokio::time::advance(STILL_READING).await;
        assert_eq!(mailbox.push(delivery(QoS::AtLeastOnce)), Pushed::Queued);
    }
}
