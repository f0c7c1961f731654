//! An MQTT client without scruples: any identity, any topic, any bytes.

use crate::target::Target;
use bytes::Bytes;
use rumqttc::{
    AsyncClient, Event, Incoming, MqttOptions, PubAckReason, PublishOptions, PublishResult, QoS,
    TlsConfiguration, Transport,
};
use std::time::Duration;
use tidegate_pki::tls::{ClientTls, client_config};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long an answer may take before the attack is called unanswered.
const PATIENCE: Duration = Duration::from_secs(5);
/// Captured messages kept until the attack looks at them.
const CAPTURE_LIMIT: usize = 64;
/// Payloads up to this size are sent: some attacks are large.
const LARGEST_PAYLOAD_BYTES: u32 = 1 << 20;

/// What the broker said to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The message was taken.
    Taken,
    /// The message was refused with this MQTT 5 reason code.
    Refused(u8),
}

/// Why an attack could not be carried out as planned.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The stolen certificate or the CA could not be used.
    #[error("cannot use the certificates: {0}")]
    Tls(String),
    /// The broker refused or closed the connection.
    #[error("the broker closed the connection: {0}")]
    Closed(String),
    /// No answer came in time.
    #[error("no answer from {0} within 5 s")]
    Silent(String),
}

/// One connection to the target.
#[derive(Debug)]
pub struct Client {
    client: AsyncClient,
    captured: mpsc::Receiver<(String, Bytes)>,
    ended: mpsc::Receiver<String>,
    events: JoinHandle<()>,
    address: String,
}

impl Client {
    /// Connects as `identity` (the name of a stolen certificate; `None` presents none).
    pub async fn connect(
        target: &Target,
        identity: Option<&str>,
        client_id: &str,
    ) -> Result<Self, ClientError> {
        let mut options = MqttOptions::new(client_id, (target.host.as_str(), target.port));
        options
            .set_keep_alive(10)
            .set_max_packet_size(Some(LARGEST_PAYLOAD_BYTES));
        if target.tls {
            let tls = ClientTls {
                ca: target.ca(),
                identity: identity.map(|name| target.identity(name)),
            };
            let config = client_config(&tls).map_err(|error| ClientError::Tls(error.to_string()))?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        let (client, mut eventloop) = AsyncClient::builder(options).capacity(16).build();
        let (captured_tx, captured) = mpsc::channel(CAPTURE_LIMIT);
        let (connected_tx, mut connected) = mpsc::channel(1);
        let (ended_tx, ended) = mpsc::channel(1);
        let events = tokio::spawn(async move {
            loop {
                match eventloop.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => drop(connected_tx.try_send(Ok(()))),
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        drop(captured_tx.try_send((topic, publish.payload)));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        drop(connected_tx.try_send(Err(error.to_string())));
                        drop(ended_tx.try_send(error.to_string()));
                        return;
                    }
                }
            }
        });
        let address = format!("{}:{}", target.host, target.port);
        match timeout(PATIENCE, connected.recv()).await {
            Ok(Some(Ok(()))) => Ok(Self {
                client,
                captured,
                ended,
                events,
                address,
            }),
            Ok(Some(Err(error))) => Err(ClientError::Closed(error)),
            Ok(None) => Err(ClientError::Closed("before it answered".into())),
            Err(_) => {
                events.abort();
                Err(ClientError::Silent(address))
            }
        }
    }

    /// Publishes at QoS 1 and waits for the broker's answer.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<Answer, ClientError> {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        let notice = self
            .client
            .publish_tracked(topic, payload.into(), options)
            .await
            .map_err(|error| ClientError::Closed(error.to_string()))?;
        tokio::select! {
            answer = timeout(PATIENCE, notice.wait_async()) => match answer {
                Ok(Ok(PublishResult::Qos1(ack))) => Ok(match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Answer::Taken,
                    refused => Answer::Refused(refused as u8),
                }),
                Ok(Ok(_)) => Ok(Answer::Taken),
                Ok(Err(error)) => Err(ClientError::Closed(error.to_string())),
                Err(_) => Err(ClientError::Silent(self.address.clone())),
            },
            Some(error) = self.ended.recv() => Err(ClientError::Closed(error)),
        }
    }

    /// Subscribes to `filter` and waits for the next message under it.
    pub async fn capture(&mut self, filter: &str) -> Result<(String, Bytes), ClientError> {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .map_err(|error| ClientError::Closed(error.to_string()))?;
        match timeout(2 * PATIENCE, self.captured.recv()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(ClientError::Closed("while waiting for a message".into())),
            Err(_) => Err(ClientError::Silent(self.address.clone())),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.events.abort();
    }
}
