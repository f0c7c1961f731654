//! The embedded broker over streams in memory, with a gate in the test's hands. Time may be paused.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_broker::{Access, Broker, Disposition, Gate, Handle, Incoming, Limits, Reply, SecurityEvent};
use tidegate_device::publisher::{Connector, EchoTopics};
use tidegate_envelope::id::KeyEpoch;
use tidegate_envelope::key::MacKey;
use tidegate_envelope::principal::{Principal, Role};
use tidegate_envelope::reason::Reason;
use tidegate_envelope::time::Timestamp;
use tidegate_envelope::time_echo::{self, Nonce};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::rig::{EPOCH, TIME, device, key};

pub(crate) const REQUESTS: &str = "hydroficient/grandmarina/device-001/time";
pub(crate) const ANSWERS: &str = "hydroficient/grandmarina/device-001/commands";
/// Room in each direction of a stream; more than any test sends.
const STREAM_BYTES: usize = 1 << 16;

/// How the gate treats one question.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// As it should be.
    Good,
    /// One by each of three keys, this device's in the middle.
    Rotating,
    /// So much later.
    After(Duration),
    /// With the MAC of another key, and an hour off.
    Forged,
    /// Genuine, but for another nonce, and an hour off.
    OtherNonce,
    /// What was answered to this question before, byte for byte.
    Old(Bytes),
    /// Not at all.
    None,
}

/// What the broker asks.
#[derive(Debug)]
pub(crate) struct Script {
    start: Instant,
    answers: Mutex<VecDeque<Answer>>,
    last_answer: Mutex<Bytes>,
    /// Told of each question.
    pub(crate) asked: Notify,
    readings: mpsc::UnboundedSender<Incoming>,
}

impl Script {
    /// The gateway's clock.
    pub(crate) fn now(&self) -> Timestamp {
        TIME.plus(self.start.elapsed())
    }

    pub(crate) fn then(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    /// The answer that went out last.
    pub(crate) fn last_answer(&self) -> Bytes {
        self.last_answer.lock().unwrap().clone()
    }

    async fn answer(&self, question: &[u8]) -> Disposition {
        let nonce = time_echo::parse_request(question).unwrap();
        let next = self.answers.lock().unwrap().pop_front();
        self.asked.notify_one();
        let signed = |nonce: &Nonce, time: Timestamp, key: &MacKey| {
            Bytes::from(time_echo::answer(nonce, &device(), time, EPOCH, key))
        };
        let (now, an_hour_off) = (self.now(), self.now().plus(Duration::from_secs(3_600)));
        let payload = match next.unwrap_or(Answer::Good) {
            Answer::Good => signed(&nonce, now, &key()),
            Answer::Rotating => {
                let by = |epoch| Bytes::from(time_echo::answer(&nonce, &device(), now, epoch, &key()));
                let payloads = [EPOCH.0 - 1, EPOCH.0, EPOCH.0 + 1].map(|epoch| by(KeyEpoch(epoch)));
                let topic = ANSWERS.into();
                return Disposition::Reply(Reply {
                    topic,
                    payloads: payloads.into(),
                });
            }
            Answer::After(wait) => {
                let payload = signed(&nonce, now, &key());
                tokio::time::sleep(wait).await;
                payload
            }
            Answer::Forged => signed(&nonce, an_hour_off, &MacKey::from_bytes(b"another key")),
            Answer::OtherNonce => signed(&Nonce([7; 16]), an_hour_off, &key()),
            Answer::Old(payload) => payload,
            Answer::None => return Disposition::Deliver,
        };
        *self.last_answer.lock().unwrap() = payload.clone();
        let topic = ANSWERS.into();
        Disposition::Reply(Reply {
            topic,
            payloads: vec![payload],
        })
    }
}

impl Gate for Script {
    async fn admit(&self, publish: Incoming) -> Disposition {
        if publish.topic == REQUESTS {
            return self.answer(&publish.payload).await;
        }
        // A test that looks at no reading has dropped the other end.
        let _ = self.readings.send(publish);
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

/// A running broker.
pub(crate) struct Embedded {
    pub(crate) gate: Arc<Script>,
    pub(crate) handle: Handle,
    /// Every reading that came.
    pub(crate) readings: mpsc::UnboundedReceiver<Incoming>,
    _stop: DropGuard,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let (sender, readings) = mpsc::unbounded_channel();
        let gate = Arc::new(Script {
            start: Instant::now(),
            answers: Mutex::default(),
            last_answer: Mutex::default(),
            asked: Notify::new(),
            readings: sender,
        });
        let broker = Broker::without_listeners(Limits::default(), Arc::clone(&gate));
        let handle = broker.handle();
        let stop = CancellationToken::new();
        tokio::spawn(broker.run(stop.clone()));
        Self {
            gate,
            handle,
            readings,
            _stop: stop.drop_guard(),
        }
    }

    /// Connects to this broker.
    pub(crate) fn connector(&self) -> Connector {
        let handle = self.handle.clone();
        Connector::new(move |address| {
            assert_eq!(address, "127.0.0.1:1883");
            let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
            let (id, role) = (device(), Role::Device);
            let principal = Arc::new(Principal::Certificate { id, role });
            handle.attach(theirs, ([127, 0, 0, 1], 1).into(), principal, Access::Open);
            async move { Ok(ours) }
        })
    }

    /// Ends the device's connection, and forgets its session.
    pub(crate) fn cut(&self) {
        self.handle.disconnect(&device(), Reason::NotAuthorized);
    }

    pub(crate) fn topics() -> EchoTopics {
        EchoTopics {
            request: REQUESTS.into(),
            answer: ANSWERS.into(),
        }
    }
}
