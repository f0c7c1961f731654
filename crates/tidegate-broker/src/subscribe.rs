//! SUBSCRIBE and UNSUBSCRIBE.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    DisconnectReasonCode, RetainHandling, SubscribeAckReason, SubscriptionOptions, UnsubscribeAckReason,
};
use tidegate_envelope::reason::Reason;

use crate::connection::Connection;
use crate::end::End;
use crate::filter::Filter;
use crate::message::{Delivery, owned};
use crate::router::Options;

impl Connection {
    /// Subscribes to each filter that is legal and allowed; retained messages follow the SUBACK.
    pub(crate) fn subscribe(
        &mut self,
        packet_id: NonZeroU16,
        id: Option<NonZeroU32>,
        filters: Vec<(ByteString, SubscriptionOptions)>,
    ) -> Result<(), End> {
        let mut status = Vec::with_capacity(filters.len());
        let mut retained = Vec::new();
        for (text, wanted) in &filters {
            let answer = match Filter::parse(text) {
                None => SubscribeAckReason::TopicFilterInvalid,
                Some(Filter { share: Some(_), .. }) if wanted.no_local => {
                    return Err(End::protocol(
                        DisconnectReasonCode::ProtocolError,
                        "no local on a shared subscription",
                    ));
                }
                Some(filter) => self.subscribe_one(text, filter, *wanted, id, &mut retained),
            };
            status.push(answer);
        }
        self.wire.subscribed(packet_id, status, &mut self.output);
        for delivery in retained {
            self.session.mailbox.push_if_room(delivery);
        }
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        text: &ByteString,
        filter: Filter<'_>,
        wanted: SubscriptionOptions,
        id: Option<NonZeroU32>,
        retained: &mut Vec<Delivery>,
    ) -> SubscribeAckReason {
        self.rights.look_again();
        if !self.rights.subscribe(filter.path) {
            self.shared.report(
                Reason::AclDenied,
                &self.who,
                Some(text),
                "a subscription was refused",
            );
            return SubscribeAckReason::NotAuthorized;
        }
        let subscriptions = &mut self.flow.subscriptions;
        if subscriptions.len() >= self.shared.limits.max_subscriptions && !subscriptions.contains(text) {
            return SubscribeAckReason::QuotaExceeded;
        }
        subscriptions.insert(owned(text));
        let options = Options {
            qos: wanted.qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            id,
        };
        let new = self
            .shared
            .router
            .subscribe(self.session.key, filter, &self.session.mailbox, options);
        let send_retained = match wanted.retain_handling {
            RetainHandling::AtSubscribe => true,
            RetainHandling::AtSubscribeNew => new,
            RetainHandling::NoAtSubscribe => false,
        };
        if send_retained && filter.share.is_none() {
            let ids = id.map(|id| Arc::from([id]));
            retained.extend(
                self.shared
                    .retained
                    .matching(filter.path)
                    .into_iter()
                    .map(|message| Delivery {
                        qos: message.qos.less_value(wanted.qos),
                        retain: true,
                        ids: ids.clone(),
                        message,
                    }),
            );
        }
        match wanted.qos {
            QoS::AtMostOnce => SubscribeAckReason::GrantedQos0,
            QoS::AtLeastOnce => SubscribeAckReason::GrantedQos1,
            QoS::ExactlyOnce => SubscribeAckReason::GrantedQos2,
        }
    }

    pub(crate) fn unsubscribe(&mut self, packet_id: NonZeroU16, filters: &[ByteString]) {
        let answer = |text: &ByteString| match Filter::parse(text) {
            None => UnsubscribeAckReason::TopicFilterInvalid,
            Some(filter) => {
                self.shared.router.unsubscribe(self.session.key, filter);
                if self.flow.subscriptions.remove(text) {
                    UnsubscribeAckReason::Success
                } else {
                    UnsubscribeAckReason::NoSubscriptionExisted
                }
            }
        };
        let status = filters.iter().map(answer).collect();
        self.wire.unsubscribed(packet_id, status, &mut self.output);
    }
}
