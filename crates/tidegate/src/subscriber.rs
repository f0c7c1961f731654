//! Subscriber mode: takes messages from any broker, and acknowledges them after the commit.

use crate::pipeline::{Arrival, Pipeline};
use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, Publish};
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, ConnectionError, Event, EventLoop, Incoming,
    MqttOptions, QoS, SessionMode,
};
use std::time::Duration;
use tidegate_broker::Disposition;
use tidegate_envelope::principal::Principal;
use tokio_util::sync::CancellationToken;

/// Messages that wait for their commit at one time; the broker keeps the rest.
const IN_FLIGHT: u16 = 512;
/// Largest packet that is read.
const LARGEST_PACKET_BYTES: u32 = 128 * 1024;
/// How long the broker keeps what arrives while this gateway is away.
const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// All deliveries come through the one session that this gateway has at the broker.
const SESSION: u64 = 1;

/// Says what the connection does, for people.
pub(crate) trait Watch {
    /// The subscription stands.
    fn connected(&mut self);
    /// The connection is gone or could not be made; the next attempt follows.
    fn disconnected(&mut self, error: &str);
}

/// Subscribes to `filter` and feeds the pipeline until `stop`.
///
/// Ends with an error only when the broker refuses this gateway for good.
pub(crate) async fn run(
    mut options: MqttOptions,
    filter: &str,
    pipeline: Pipeline,
    stop: CancellationToken,
    watch: &mut impl Watch,
) -> Result<()> {
    options
        .set_ack_mode(AckMode::Manual)
        .set_session_mode(SessionMode::Persistent)
        // After a restart only the broker remembers the session; what it still holds is what we want.
        .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_receive_maximum(Some(IN_FLIGHT))
        .set_max_packet_size(Some(LARGEST_PACKET_BYTES))
        .set_keep_alive(15);
    let (client, mut eventloop) = AsyncClient::builder(options)
        .capacity(usize::from(IN_FLIGHT) + 16)
        .build();
    let mut pause = Duration::ZERO;
    loop {
        let ended = tokio::select! {
            ended = connection(&client, &mut eventloop, filter, &pipeline, watch, &mut pause) => ended,
            () = stop.cancelled() => {
                drop(client.disconnect_now().await);
                return Ok(());
            }
        };
        if let ConnectionError::ConnectionRefused(code) = &ended
            && refuses_for_good(*code)
        {
            bail!("the broker refuses this gateway: {code:?}");
        }
        watch.disconnected(&ended.to_string());
        pause = (pause * 2).clamp(Duration::from_millis(100), LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// One connection, until it ends.
///
/// Messages in flight when it ends go on to their commit; the broker sends them again, and the
/// replay guard knows them as duplicates.
async fn connection(
    client: &AsyncClient,
    eventloop: &mut EventLoop,
    filter: &str,
    pipeline: &Pipeline,
    watch: &mut impl Watch,
    pause: &mut Duration,
) -> ConnectionError {
    let mut fates = FuturesOrdered::new();
    loop {
        let room = fates.len() < usize::from(IN_FLIGHT);
        tokio::select! {
            biased;
            Some((publish, fate)) = fates.next(), if !fates.is_empty() => {
                if fate == Disposition::Unavailable {
                    // Not durable, so not acknowledged: a new connection makes the broker send it again.
                    eventloop.clean();
                    return ConnectionError::Io(std::io::Error::other("a message could not be stored"));
                }
                let publish: Publish = publish;
                if let Err(error) = client.try_ack(&publish) {
                    tracing::debug!(%error, "cannot acknowledge; the broker will send again");
                }
            }
            event = eventloop.poll(), if room => match event {
                Ok(Event::Incoming(Incoming::ConnAck(connected))) => {
                    *pause = Duration::ZERO;
                    if connected.session_present {
                        // The broker kept the subscription together with what came meanwhile.
                        watch.connected();
                        continue;
                    }
                    if let Err(error) = client.try_subscribe(filter, QoS::AtLeastOnce) {
                        return ConnectionError::Io(std::io::Error::other(error.to_string()));
                    }
                }
                Ok(Event::Incoming(Incoming::SubAck(_))) => watch.connected(),
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    let pipeline = pipeline.clone();
                    fates.push_back(async move {
                        let fate = admit(&pipeline, &publish).await;
                        (publish, fate)
                    });
                }
                Ok(_) => {}
                Err(error) => return error,
            },
        }
    }
}

async fn admit(pipeline: &Pipeline, publish: &Publish) -> Disposition {
    // A topic that is not UTF-8 cannot be a device's, and is refused by that check.
    let topic = String::from_utf8_lossy(&publish.topic);
    let payload: Bytes = publish.payload.clone();
    let arrival = Arrival {
        topic: &topic,
        payload,
        retained: publish.retain,
        principal: &Principal::Broker,
        session: SESSION,
        source: "broker".to_owned(),
    };
    pipeline.admit(arrival).await
}

fn refuses_for_good(code: ConnectReturnCode) -> bool {
    matches!(
        code,
        ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::Banned
            | ConnectReturnCode::ClientIdentifierNotValid
    )
}
