//! The publisher that is killed: signs and counts at full speed until it is.

use anyhow::{Context, Result};
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tidegate_device::publisher::{
    BrokerAddress, Overflow, PublishError, Publisher, PublisherConfig, Signing,
};
use tidegate_device::sequence::SequenceFile;
use tidegate_envelope::id::{Boot, DeviceId, KeyEpoch, MessageDeviceId, Sequence};
use tidegate_envelope::json_v1::{self, Draft};
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::Channels;
use tidegate_envelope::time::Timestamp;

/// What a life tells of each number: boot (4 bytes) and number (8), big-endian.
pub(super) const TOLD_BYTES: usize = 12;
/// Where the publisher sends.
const TOPIC: &str = "proof/device-001/sensors";
/// Any time does: no verifier listens.
const TIME: Timestamp = Timestamp::from_micros(1_771_502_400_000_000);

/// How a number leaves the process.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Signed, and told.
    Pipe,
    /// Told, and published to a broker at this port of the loopback.
    Broker(u16),
}

/// The publisher's state.
pub(super) fn state(folder: &Path) -> PathBuf {
    folder.join("device-001.sequence")
}

/// Its successor while it is being written.
pub(super) fn next_state(folder: &Path) -> PathBuf {
    folder.join("device-001.sequence.new")
}

/// Lives until it is killed, or the pipe to its parent ends.
pub(super) fn live(folder: &Path, way: Way) -> Result<()> {
    let device = DeviceId::new("device-001")?;
    let sequence = SequenceFile::open(&state(folder), &device)?;
    let message_id = MessageDeviceId::new("HYDROLOGIC-Device-001")?;
    let key = MacKey::from_bytes(b"a key of this proof");
    let channels = Channels::new(vec![
        ("flow_rate".into(), 41.5),
        ("pressure_upstream".into(), 63.25),
    ])
    .context("two channels")?;
    match way {
        Way::Pipe => sign(sequence, &message_id, &key, &channels),
        Way::Broker(port) => {
            let broker = BrokerAddress {
                host: "127.0.0.1".into(),
                port,
                tls: None,
            };
            let signing = Some(Signing {
                key,
                epoch: KeyEpoch(0),
            });
            let config = PublisherConfig {
                overflow: Overflow::Refuse,
                ..PublisherConfig::new(device, message_id, TOPIC.into(), broker, signing)
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(publish(config, sequence, &channels))
        }
    }
}

fn sign(
    mut sequence: SequenceFile,
    message_id: &MessageDeviceId,
    key: &MacKey,
    channels: &Channels,
) -> Result<()> {
    let (boot, mut pipe) = (sequence.boot(), Pipe::open()?);
    loop {
        let number = sequence.advance()?;
        let draft = Draft {
            device: message_id,
            timestamp: TIME,
            sequence: number,
            boot: Some(boot),
            epoch: None,
            status: "operational",
            channels,
        };
        black_box(json_v1::sign(&draft, key));
        pipe.tell(boot, number)?;
    }
}

async fn publish(config: PublisherConfig, sequence: SequenceFile, channels: &Channels) -> Result<()> {
    let (boot, mut pipe) = (sequence.boot(), Pipe::open()?);
    let (mut publisher, _events) = Publisher::start(config, sequence)?;
    loop {
        match publisher.publish(TIME, "operational", channels) {
            Ok(number) => pipe.tell(boot, number)?,
            Err(PublishError::QueueFull(_)) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::task::yield_now().await;
    }
}

/// The pipe to the parent.
struct Pipe(File);

impl Pipe {
    /// The standard output past its buffer, which would split what holds the byte of a line feed.
    fn open() -> io::Result<Self> {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self(output.into()))
    }

    /// One write of few bytes, which a pipe takes whole or not at all.
    fn tell(&mut self, boot: Boot, number: Sequence) -> io::Result<()> {
        let mut told = [0; TOLD_BYTES];
        told[..4].copy_from_slice(&boot.0.to_be_bytes());
        told[4..].copy_from_slice(&number.get().to_be_bytes());
        self.0.write_all(&told)
    }
}
