//! The load generator: signed messages over MQTT 3.1.1 at QoS 1, many connections, a window each.
//!
//! It speaks through the packet codec alone, so that it takes as little of the two cores as it
//! can; every message is signed when it is sent, as a device would.

use super::link::Link;
use crate::clock;
use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3::Packet;
use rustls::ClientConfig;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_envelope::id::{MessageDeviceId, Sequence};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::Channels;
use tokio::time::Instant;

/// Devices that publish all the time need no keep-alive; this one is never used up.
const KEEP_ALIVE_S: u16 = 60;

/// One publishing device.
pub(super) struct Device {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) message_id: MessageDeviceId,
    pub(super) key: MacKey,
    pub(super) tls: Arc<ClientConfig>,
}

/// How a device publishes.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Messages of each device.
    pub(super) messages: u64,
    /// Unacknowledged messages at one time.
    pub(super) window: usize,
    /// Pause between two messages of one device; none publishes as fast as the window allows.
    pub(super) interval: Option<Duration>,
}

/// An open connection of one device.
pub(super) struct Connection {
    device: Device,
    link: Link,
    sequence: u64,
}

/// Gives the channels of a message: the running number in, the values out.
pub(super) type Values = fn(number: u64) -> Channels;

impl Connection {
    /// Connects with the device's certificate.
    pub(super) async fn open(port: u16, device: Device) -> Result<Self> {
        let client_id = format!("load-{}", device.id);
        let link = Link::open(port, &device.tls, &client_id, KEEP_ALIVE_S)
            .await
            .with_context(|| device.id.clone())?;
        Ok(Self {
            device,
            link,
            sequence: 0,
        })
    }

    /// Publishes by `plan`; counts acknowledgements as they come.
    ///
    /// `numbers` gives every message of the run a number of its own.
    pub(super) async fn publish(
        &mut self,
        plan: Plan,
        values: Values,
        numbers: &AtomicU64,
        sent: impl Fn(u64),
        acknowledged: &AtomicU64,
    ) -> Result<()> {
        let mut in_flight = 0_usize;
        let mut remaining = plan.messages;
        let mut out = BytesMut::with_capacity(1 << 16);
        let mut next = Instant::now();
        while remaining > 0 || in_flight > 0 {
            let due = plan.interval.is_none() || Instant::now() >= next;
            while remaining > 0 && in_flight < plan.window && due {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                self.encode_message(values(number), &mut out)?;
                sent(number);
                remaining -= 1;
                in_flight += 1;
                if let Some(interval) = plan.interval {
                    next += interval;
                    break;
                }
            }
            if !out.is_empty() {
                self.link.write(&out).await?;
                out.clear();
            }
            let wait_until_next = remaining > 0 && in_flight < plan.window;
            let mut acks = tokio::select! {
                acks = self.receive_acknowledgements(), if in_flight > 0 => acks?,
                () = tokio::time::sleep_until(next), if wait_until_next && plan.interval.is_some() => 0,
            };
            acks += self.buffered_acknowledgements()?;
            in_flight = in_flight.saturating_sub(acks);
            acknowledged.fetch_add(acks as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn encode_message(&mut self, channels: Channels, out: &mut BytesMut) -> Result<()> {
        self.sequence += 1;
        let draft = Draft {
            device: &self.device.message_id,
            timestamp: clock::now(),
            sequence: Sequence::new(self.sequence).context("sequence out of range")?,
            boot: None,
            epoch: None,
            status: "operational",
            channels: &channels,
        };
        let payload = json_v1::sign(&draft, &self.device.key);
        // Packet ids go around; the window is far smaller than their range.
        let id = u16::try_from(self.sequence % 65_535 + 1)?;
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: self.device.topic.clone().into(),
            packet_id: NonZeroU16::new(id),
            payload: Bytes::from(payload),
            properties: None,
        };
        self.link.encode(Packet::Publish(Box::new(publish)), out)
    }

    async fn receive_acknowledgements(&mut self) -> Result<usize> {
        match self
            .link
            .receive()
            .await
            .with_context(|| self.device.id.clone())?
        {
            Packet::PublishAck { .. } => Ok(1),
            other => bail!("{}: the broker sends {other:?}", self.device.id),
        }
    }

    fn buffered_acknowledgements(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(packet) = self.link.decode()? {
            count += usize::from(matches!(packet, Packet::PublishAck { .. }));
        }
        Ok(count)
    }
}
