//! A publisher with a simulated sensor behind it.

use crate::clock;
use crate::config::Config;
use crate::devices::{DeviceEntry, MessageFormat};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use compact_str::CompactString;
use std::time::Duration;
use tidegate_device::publisher::{
    self, BrokerAddress, EchoTopics, Event, PublishError, Publisher, PublisherConfig, ReadingTime, Signing,
    TimeSource,
};
use tidegate_device::renewal::{self, Renewal, RenewalConfig};
use tidegate_device::sequence::SequenceFile;
use tidegate_device::simulator::{Building, Fault, FaultKind, SensorModel, Zone};
use tidegate_envelope::cose_v1::TagLength;
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, ZoneId};
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;
use tidegate_verify::registry::TopicShape;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The simulated building is always the same one.
pub(crate) const SEED: u64 = 20_260_219;
/// Simulated time from one reading to the next, whatever the pause between two messages: the
/// model has learnt how much may change from reading to reading.
pub(crate) const READING_EVERY: Duration = Duration::from_secs(5);
/// How long a stop waits for the last acknowledgements.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);

/// How a simulated sensor speaks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Another format than the registry entry's.
    pub(crate) format: Option<MessageFormat>,
    /// How long the tags of cose-v1 are.
    pub(crate) tag: Tag,
    /// Where its time comes from.
    pub(crate) time: Time,
}

/// How long the tags of cose-v1 are.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Tag {
    /// 32 bytes
    #[default]
    Full,
    /// 8 bytes
    Short,
}

/// Where a sensor's time comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Time {
    /// This machine's clock
    #[default]
    System,
    /// Asked of the gateway, signed, as by a device without a clock
    Echo,
}

impl Manner {
    fn format(self, entry: &DeviceEntry, config: &Config) -> Result<publisher::MessageFormat> {
        let format = self.format.unwrap_or(entry.format);
        if !config.level.has_signatures() {
            if let Some(format @ (MessageFormat::CoseV1 | MessageFormat::CoseV1Detached)) = self.format {
                bail!(
                    "{} is a signature, and the level {} has none: leave --format out, or take --level signed",
                    format.name(),
                    config.level
                );
            }
            return Ok(publisher::MessageFormat::JsonV1);
        }
        let tag = match self.tag {
            Tag::Full => TagLength::Full,
            Tag::Short => TagLength::Short,
        };
        Ok(match format {
            MessageFormat::JsonV1 => publisher::MessageFormat::JsonV1,
            MessageFormat::CoseV1Detached => publisher::MessageFormat::CoseDetached { tag },
            MessageFormat::CoseV1 if entry.channels.is_empty() => bail!(
                "the registry entry of {} names no `channels`, whose order cose-v1 needs",
                entry.id
            ),
            MessageFormat::CoseV1 => publisher::MessageFormat::CoseV1 {
                channels: entry.channels.iter().map(CompactString::from).collect(),
                tag,
            },
        })
    }

    fn time(self, entry: &DeviceEntry, config: &Config) -> Result<TimeSource> {
        if self.time == Time::System {
            return Ok(TimeSource::System);
        }
        if !config.level.has_signatures() {
            bail!(
                "an answer about the time is signed, and the level {} has no signatures: leave --time out, \
                 or take --level signed",
                config.level
            );
        }
        let topics = TopicShape::new(&config.telemetry_topic)?;
        Ok(TimeSource::Echo(EchoTopics {
            request: topics.time(&entry.topic),
            answer: topics.command(&entry.topic),
        }))
    }
}

/// A publisher with a simulated sensor behind it.
pub(crate) struct SimulatedSensor {
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    model: SensorModel,
    /// Simulated time of the next reading.
    next: Timestamp,
    fault: Option<Fault>,
    entry: DeviceEntry,
    time: Time,
    /// The last reading, where the time is not known yet.
    waiting: Option<(Instant, Channels)>,
    failing: bool,
    renewal: Option<(Renewal, mpsc::Receiver<renewal::Event>)>,
}

impl SimulatedSensor {
    /// Opens the device's counters and starts connecting.
    pub(crate) fn open(
        config: &Config,
        entry: &DeviceEntry,
        broker: BrokerAddress,
        manner: Manner,
    ) -> Result<Self> {
        Self::open_renewing(config, entry, broker, manner, None)
    }

    /// As [`Self::open`]; the device's certificate is renewed while it runs, and takes the place of
    /// the TLS in `broker`.
    pub(crate) fn open_renewing(
        config: &Config,
        entry: &DeviceEntry,
        broker: BrokerAddress,
        manner: Manner,
        renewal: Option<RenewalConfig>,
    ) -> Result<Self> {
        let id = DeviceId::new(&entry.id)?;
        let folder = config.files.publishers();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let sequence = SequenceFile::open(&folder.join(format!("{id}.sequence")), &id)?;
        let signing = if config.level.has_signatures() {
            Some(Signing {
                key: entry.signing_key(config)?,
                epoch: KeyEpoch(entry.key_epoch),
            })
        } else {
            None
        };
        let topic = config.telemetry_topic.replace("{device}", &entry.topic);
        let message_id = MessageDeviceId::new(&entry.message_id)?;
        let model = Building::new(SEED).sensor(Zone::of(&ZoneId::new(&entry.zone)?), &id);
        let renewal = renewal.map(Renewal::start).transpose()?;
        let speaking = PublisherConfig {
            tls_changes: renewal.as_ref().map(|(renewal, _)| renewal.tls()),
            format: manner.format(entry, config)?,
            time: manner.time(entry, config)?,
            ..PublisherConfig::new(id, message_id, topic, broker, signing)
        };
        let (publisher, events) = Publisher::start(speaking, sequence)?;
        Ok(Self {
            publisher,
            events,
            model,
            next: clock::now(),
            fault: None,
            entry: entry.clone(),
            time: manner.time,
            waiting: None,
            failing: false,
            renewal,
        })
    }

    /// Publishes once per `interval` until `stop`, then waits for the last acknowledgements.
    pub(crate) async fn run(
        mut self,
        offset: Duration,
        interval: Duration,
        mut faults: mpsc::Receiver<(FaultKind, u32)>,
        stop: CancellationToken,
    ) -> Result<()> {
        let mut ticks = tokio::time::interval_at(Instant::now() + offset, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.publish()?,
                Some((kind, readings)) = faults.recv() => {
                    let duration = READING_EVERY * readings;
                    self.fault = Some(Fault::new(kind, self.next, duration, SEED));
                }
                Some(event) = self.events.recv() => {
                    self.report(&event);
                    if matches!(event, Event::TimeSet { .. })
                        && let Some((measured, channels)) = self.waiting.take()
                    {
                        self.send(measured.into(), channels)?;
                    }
                }
                Some(event) = certificate_event(&mut self.renewal) => self.report_certificate(&event),
                () = stop.cancelled() => break,
            }
        }
        let left = self.publisher.close(LAST_ACKNOWLEDGEMENTS).await;
        if left > 0 {
            tracing::warn!(device = self.entry.id, left, "messages were not acknowledged");
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let mut channels = self.model.sample(self.next);
        if let Some(fault) = &mut self.fault {
            channels = fault.apply(self.next, channels);
        }
        self.next = self.next.plus(READING_EVERY);
        self.waiting = None;
        let time = match self.time {
            Time::System => clock::now().into(),
            Time::Echo => Instant::now().into(),
        };
        self.send(time, channels)
    }

    /// A reading whose time is not known yet waits until it is, or until the next one.
    fn send(&mut self, time: ReadingTime, channels: Channels) -> Result<()> {
        match (self.publisher.publish(time, "operational", &channels), time) {
            (Ok(_), _) => Ok(()),
            (Err(PublishError::NoTime), ReadingTime::Measured(measured)) => {
                tracing::debug!(device = self.entry.id, "the time is not known yet");
                self.waiting = Some((measured, channels));
                Ok(())
            }
            (Err(error), _) => Err(error).with_context(|| format!("cannot publish for {}", self.entry.id)),
        }
    }

    fn report_certificate(&self, event: &renewal::Event) {
        let device = self.entry.id.as_str();
        match event {
            renewal::Event::Renewed { not_after, next, .. } => {
                tracing::info!(device, %not_after, %next, "the certificate was renewed");
            }
            renewal::Event::Replaced { not_after, next } => {
                tracing::info!(device, %not_after, %next, "another certificate or CA was put in place");
            }
            renewal::Event::RenewalFailed {
                detail,
                retry_in,
                not_after,
            } => {
                tracing::warn!(device, detail, ?retry_in, %not_after, "the certificate was not renewed");
            }
        }
    }

    /// Says once what goes wrong, and once when it works again.
    fn report(&mut self, event: &Event) {
        let device = self.entry.id.as_str();
        match event {
            Event::Disconnected { detail, retry_in, .. } if !self.failing => {
                self.failing = true;
                tracing::warn!(device, detail, ?retry_in, "not connected; trying again");
            }
            Event::Connected { .. } if self.failing => {
                self.failing = false;
                tracing::warn!(device, "connected again");
            }
            Event::Refused { sequence, code } => {
                tracing::warn!(device, %sequence, code = format!("{code:#04x}"), "refused by the broker");
            }
            Event::Dropped { sequence, why } => tracing::warn!(device, %sequence, ?why, "dropped"),
            Event::TimeSet { error } => tracing::info!(device, ?error, "the gateway said the time"),
            Event::TimeRefused { why } => {
                tracing::warn!(device, %why, "an answer about the time was not believed");
            }
            _ => tracing::debug!(device, ?event, "publisher"),
        }
    }
}

/// The next event of a renewal; waits for ever where there is none.
async fn certificate_event(
    renewal: &mut Option<(Renewal, mpsc::Receiver<renewal::Event>)>,
) -> Option<renewal::Event> {
    match renewal {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}
