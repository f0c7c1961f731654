//! The broker's end: keeps the boot and number of every message that came out of a socket.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tidegate_broker::{
    Access, Broker, BrokerConfig, Disposition, Gate, Incoming, Limits, Listener, SecurityEvent, Transport,
};
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::reason::Reason;
use tokio_util::sync::CancellationToken;

/// Boot and number of a message.
pub(super) type Sent = (u32, u64);

/// A broker on a port of its own, in a thread of its own, and the wish to stop.
pub(super) struct Wire {
    pub(super) port: u16,
    /// Set by Ctrl-C.
    pub(super) stopped: Arc<AtomicBool>,
    received: Arc<Received>,
    end: CancellationToken,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Received {
    messages: Mutex<Vec<Sent>>,
    /// Told of each message.
    more: Condvar,
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        // Nothing that holds the lock panics.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Received {
    async fn admit(&self, publish: Incoming) -> Disposition {
        let reading = Document::parse(&publish.payload)
            .ok()
            .and_then(|document| json_v1::reading(&document).ok());
        let Some((boot, sequence)) = reading.and_then(|reading| Some((reading.boot?, reading.sequence?)))
        else {
            return Disposition::Refused(Reason::Malformed);
        };
        self.lock().push((boot.0, sequence.get()));
        self.more.notify_one();
        Disposition::Deliver
    }

    fn observe(&self, _: SecurityEvent) {}
}

impl Wire {
    pub(super) fn open() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let received = Arc::new(Received::default());
        let config = BrokerConfig {
            listeners: vec![Listener {
                address: ([127, 0, 0, 1], 0).into(),
                transport: Transport::Plain,
                access: Access::Open,
            }],
            tls: None,
            limits: Limits::default(),
        };
        let broker = {
            let _inside = runtime.enter();
            Broker::bind(config, Arc::clone(&received))?
        };
        let port = broker
            .local_addresses()
            .first()
            .context("the broker has a port")?
            .port();
        let (end, stopped) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let (until, stop) = (end.clone(), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            runtime.spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    stop.store(true, Ordering::Relaxed);
                }
            });
            runtime.block_on(broker.run(until));
        });
        Ok(Self {
            port,
            stopped,
            received,
            end,
            thread,
        })
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Whether a message has come since the last [`Self::take`], or comes within this time.
    pub(super) fn has_received(&self, within: Duration) -> bool {
        let messages = self.received.lock();
        let waited = self
            .received
            .more
            .wait_timeout_while(messages, within, |messages| messages.is_empty());
        let (messages, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !messages.is_empty()
    }

    /// What was received since the last call.
    pub(super) fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.received.lock())
    }

    /// Stops the broker. What it received since the last call, to the end.
    pub(super) fn close(self) -> Vec<Sent> {
        self.end.cancel();
        self.thread.join().expect("the broker does not panic");
        std::mem::take(&mut self.received.lock())
    }
}
