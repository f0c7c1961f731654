//! A publisher: signs a device's readings and brings them to the broker in order.
//!
//! Messages are signed when they are given, wait in a bounded queue while there is no connection,
//! and are sent at QoS 1. One that was sent and not acknowledged is sent again, byte for byte, so
//! a verifier that has it already knows it as a redelivery.

pub(crate) mod backoff;
mod config;
mod connector;
mod event;
mod link;
mod message;
mod queue;

use self::event::Events;
use self::link::{Echo, Link, Ready};
use self::message::Messages;
use self::queue::{Entry, Queue};
use crate::clock::EchoClock;
use crate::sequence::{SequenceError, SequenceFile};
use std::sync::Arc;
use std::time::Duration;
use tidegate_envelope::id::Sequence;
use tidegate_envelope::reading::{Channels, MAX_CHANNELS};
use tidegate_envelope::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::backoff::{FIRST_WAIT, LONGEST_WAIT, STABLE_AFTER};
pub use self::config::{
    BrokerAddress, EchoTopics, MessageFormat, Overflow, PublisherConfig, Signing, TimeSource,
};
pub use self::connector::{Connector, Stream};
pub use self::event::{Counts, Dropped, Event};

/// Events that wait for the caller; further ones are only counted.
pub const EVENT_CAPACITY: usize = 1_024;
/// Largest message that is sent, as brokers of ours allow.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1_024;

/// When a reading was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingTime {
    /// By the caller's clock.
    At(Timestamp),
    /// By the clock of this process, which knows no date: needs [`TimeSource::Echo`].
    Measured(Instant),
}

impl From<Timestamp> for ReadingTime {
    fn from(time: Timestamp) -> Self {
        Self::At(time)
    }
}

impl From<Instant> for ReadingTime {
    fn from(instant: Instant) -> Self {
        Self::Measured(instant)
    }
}

/// A publisher could not start, or did not take a reading.
///
/// No sequence number is used by a reading that was not taken, except by [`Self::TooLarge`].
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing can be published to the topic.
    #[error("`{0}` is not a topic to publish to: it is empty or has wildcards")]
    Topic(String),
    /// The format or the source of time is nothing without a key.
    #[error("{0} needs a key to sign with")]
    NoKey(&'static str),
    /// The registry entry of cose-v1 names no channel, or more than a message may carry.
    #[error("cose-v1 with {0} channels: a message carries 1 to {MAX_CHANNELS}")]
    ChannelCount(usize),
    /// No sequence number could be had.
    #[error("no sequence number for the message")]
    Sequence(#[from] SequenceError),
    /// The queue is full and [`Overflow::Refuse`] is set.
    #[error("{0} messages wait for the broker already: publish again when some are acknowledged")]
    QueueFull(usize),
    /// The reading's time is an instant and no answer has said yet what time that is.
    ///
    /// Publish the same reading, with the same instant, after [`Event::TimeSet`].
    #[error("the time is not known yet: publish again once it is")]
    NoTime,
    /// The reading's time is an instant, and the publisher has no time of its own.
    #[error("the publisher does not ask for the time: give a timestamp, or set the time source to echo")]
    NoTimeSource,
    /// The reading does not have the channels of the device's registry entry.
    #[error("the reading must have exactly the channels of the registry entry; `{0}` is missing or too many")]
    Channels(String),
    /// A value has no 32-bit float, which cose-v1 sends.
    #[error("{value} of `{channel}` is beyond the range of a 32-bit float")]
    Range {
        /// The channel.
        channel: String,
        /// Its value.
        value: f64,
    },
    /// cose-v1 has no byte for the status.
    #[error("cose-v1 has no status `{0}`: it is empty, operational, degraded, maintenance or fault")]
    Status(String),
    /// cose-v1 has no number for it.
    #[error("{0} is before 1970")]
    BeforeEpoch(Timestamp),
    /// The message is too large for any broker of ours.
    #[error("a message of {0} bytes is larger than {MAX_PAYLOAD_BYTES}")]
    TooLarge(usize),
    /// Its task has ended.
    #[error("the publisher has stopped")]
    Stopped,
}

/// One device at one broker. Several live side by side in one process.
///
/// Dropping it ends the connection at once; [`Publisher::close`] waits for outstanding messages.
#[derive(Debug)]
pub struct Publisher {
    messages: Messages,
    sequence: SequenceFile,
    clock: Option<Arc<EchoClock>>,
    queue: Arc<Queue>,
    events: Events,
    close: mpsc::Sender<CloseRequest>,
}

/// Finish until the deadline, then say how many messages were left unacknowledged.
struct CloseRequest {
    deadline: Instant,
    left: oneshot::Sender<usize>,
}

impl Publisher {
    /// Starts connecting in a task of its own, and gives the events of which [`EVENT_CAPACITY`] wait.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time and network enabled.
    pub fn start(
        config: PublisherConfig,
        sequence: SequenceFile,
    ) -> Result<(Self, mpsc::Receiver<Event>), PublishError> {
        let messages = Messages::new(&config)?;
        let echo = echo(&config)?;
        let clock = echo.as_ref().map(|echo| Arc::clone(&echo.clock));
        let (events, received) = Events::new(EVENT_CAPACITY);
        let queue = Queue::new(config.queue_capacity, config.overflow, config.max_age);
        let queue = Arc::new(queue);
        let (close, close_requests) = mpsc::channel(1);
        let link = Link::new(&config, Arc::clone(&queue), events.clone(), echo);
        tokio::spawn(link.run(close_requests));
        Ok((
            Self {
                messages,
                sequence,
                clock,
                queue,
                events,
                close,
            },
            received,
        ))
    }

    /// Signs a reading and queues it. Never waits for the network.
    ///
    /// `time` is when it was measured: a [`Timestamp`], or an [`Instant`] with
    /// [`TimeSource::Echo`].
    ///
    /// Blocks for one synced write in each 1,024 calls ([`SequenceFile::advance`]).
    pub fn publish(
        &mut self,
        time: impl Into<ReadingTime>,
        status: &str,
        channels: &Channels,
    ) -> Result<Sequence, PublishError> {
        if self.close.is_closed() {
            return Err(PublishError::Stopped);
        }
        let timestamp = match (time.into(), &self.clock) {
            (ReadingTime::At(timestamp), _) => timestamp,
            (ReadingTime::Measured(instant), Some(clock)) => {
                clock.at(instant).ok_or(PublishError::NoTime)?.time
            }
            (ReadingTime::Measured(_), None) => return Err(PublishError::NoTimeSource),
        };
        let draft = self.messages.draft(timestamp, status, channels)?;
        if self.queue.refuses() {
            return Err(PublishError::QueueFull(self.queue.len()));
        }
        let sequence = self.sequence.advance()?;
        let message = self.messages.sign(draft, self.sequence.boot(), sequence)?;
        let entry = Entry {
            sequence,
            message,
            queued: Instant::now(),
        };
        self.queue.push(entry, &self.events);
        Ok(sequence)
    }

    /// What [`TimeSource::Echo`] knows of the time; `None` with another source.
    #[must_use]
    pub fn clock(&self) -> Option<&EchoClock> {
        self.clock.as_deref()
    }

    /// Totals since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.events.counts()
    }

    /// Messages that wait to be sent, those in flight not included.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Sends what is queued, waits for acknowledgements for `patience` at most, and disconnects.
    ///
    /// Returns how many messages the broker has not acknowledged: 0 when all went well.
    pub async fn close(self, patience: Duration) -> usize {
        let (left, reply) = oneshot::channel();
        let request = CloseRequest {
            deadline: Instant::now() + patience,
            left,
        };
        if self.close.send(request).await.is_err() {
            return self.queue.len();
        }
        reply.await.unwrap_or_else(|_| self.queue.len())
    }
}

/// What asks for the time, where that is configured.
fn echo(config: &PublisherConfig) -> Result<Option<Echo>, PublishError> {
    let TimeSource::Echo(topics) = &config.time else {
        return Ok(None);
    };
    let signing = config.signing.as_ref().ok_or(PublishError::NoKey("the time"))?;
    for topic in [&topics.request, &topics.answer] {
        if topic.is_empty() || !rumqttc::valid_topic(topic) {
            return Err(PublishError::Topic(topic.clone()));
        }
    }
    let clock = EchoClock::new(config.device.clone(), signing.key.clone(), signing.epoch);
    Ok(Some(Echo {
        clock: Arc::new(clock),
        topics: topics.clone(),
        ready: Ready::default(),
    }))
}
