//! PUBLISH to a client: out of its mailbox, within its window, and again after it came back.

use std::num::NonZeroU16;
use std::task::Context;

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::PublishProperties;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::end::End;
use crate::mailbox::Overflow;
use crate::message::Delivery;
use crate::shared::count;
use crate::wire::{Acknowledge, Wire};

/// Deliveries that are taken out of a mailbox at one time, so that its lock is held briefly.
const BATCH: usize = 64;

/// Bytes to write beyond which deliveries stay in the mailbox.
const OUTPUT_FULL_BYTES: usize = 65_536;

impl Connection {
    /// Moves deliveries from the mailbox to the output, as many as the client's window and the
    /// output have room for.
    pub(crate) fn deliver(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.session.mailbox.register(cx.waker());
        if self.output.len() >= OUTPUT_FULL_BYTES {
            return Ok(false);
        }
        let mut window = self.outgoing_window.saturating_sub(self.flow.outgoing.len());
        let mut room = BATCH;
        let fits = |delivery: &Delivery| {
            let counted = usize::from(delivery.qos != QoS::AtMostOnce);
            if room == 0 || counted > window {
                return false;
            }
            room -= 1;
            window -= counted;
            true
        };
        let mut batch = std::mem::take(&mut self.batch);
        let drained = self.session.mailbox.drain(&mut batch, fits);
        let moved = !batch.is_empty();
        for delivery in batch.drain(..) {
            self.send(delivery);
        }
        self.batch = batch;
        drained.map(|()| moved).map_err(|Overflow| End::Slow)
    }

    fn send(&mut self, delivery: Delivery) {
        let packet_id = (delivery.qos != QoS::AtMostOnce).then(|| self.flow.outgoing.start(delivery.clone()));
        if self.write_publish(&delivery, packet_id, false) {
            return;
        }
        // Expired, or longer than the client takes: as if it had been delivered (MQTT 5 §3.1.2.11.4).
        count(&self.shared.counters.dropped, 1);
        if let Some(packet_id) = packet_id {
            self.flow.outgoing.forget(packet_id);
        }
    }

    fn write_publish(&mut self, delivery: &Delivery, packet_id: Option<NonZeroU16>, dup: bool) -> bool {
        let message = &*delivery.message;
        let Some(seconds_left) = message.seconds_left(Instant::now()) else {
            return false;
        };
        let wanted = self.wire.is_v5()
            && (message.properties.is_some() || delivery.ids.is_some() || seconds_left.is_some());
        let properties = wanted.then(|| PublishProperties {
            message_expiry_interval: seconds_left,
            subscription_ids: delivery.ids.as_deref().unwrap_or_default().to_vec(),
            ..message.properties.clone().unwrap_or_default()
        });
        let publish = Publish {
            dup,
            retain: delivery.retain,
            qos: delivery.qos,
            topic: message.topic.clone(),
            packet_id,
            payload: message.payload.clone(),
            properties,
        };
        self.wire.publish(publish, &mut self.output)
    }

    /// Sends a client that came back what it had not acknowledged, in order (MQTT 5 §4.4).
    pub(crate) fn resend(&mut self) {
        let again: Vec<(NonZeroU16, Option<Delivery>)> = self.flow.outgoing.unfinished();
        for (packet_id, delivery) in again {
            match delivery {
                None => Wire::acknowledge(Acknowledge::Release, packet_id, &mut self.output),
                Some(delivery) => {
                    if !self.write_publish(&delivery, Some(packet_id), true) {
                        self.flow.outgoing.forget(packet_id);
                    }
                }
            }
        }
    }
}
