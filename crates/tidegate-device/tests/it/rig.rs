//! A device with its state in a folder, and what tests ask of it.

use std::time::Duration;
use tempfile::TempDir;
use tidegate_device::publisher::{BrokerAddress, Event, PublishError, Publisher, PublisherConfig, Signing};
use tidegate_device::sequence::SequenceFile;
use tidegate_device::simulator::{Building, Zone};
use tidegate_envelope::id::{DeviceId, KeyEpoch, MessageDeviceId, Sequence};
use tidegate_envelope::json::Document;
use tidegate_envelope::json_v1;
use tidegate_envelope::key::MacKey;
use tidegate_envelope::reading::{Channels, Reading};
use tidegate_envelope::time::Timestamp;
use tokio::sync::mpsc::Receiver;

pub(crate) const TOPIC: &str = "hydroficient/grandmarina/device-001/sensors";
pub(crate) const EPOCH: KeyEpoch = KeyEpoch(3);
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const TIME: Timestamp = Timestamp::from_micros(1_771_502_400_000_000);

pub(crate) fn device() -> DeviceId {
    DeviceId::new("device-001").unwrap()
}

pub(crate) fn key() -> MacKey {
    MacKey::from_bytes(b"a key of this test")
}

/// A device's folder, and a reading of it.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) readings: Channels,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let readings = Building::new(1).sensor(Zone::Kitchen, &device()).sample(TIME);
        Self {
            folder: tempfile::tempdir().unwrap(),
            readings,
        }
    }

    pub(crate) fn config(&self, port: u16) -> PublisherConfig {
        let broker = BrokerAddress {
            host: "127.0.0.1".into(),
            port,
            tls: None,
        };
        let message_id = MessageDeviceId::new("HYDROLOGIC-Device-001").unwrap();
        let signing = Some(Signing {
            key: key(),
            epoch: EPOCH,
        });
        PublisherConfig::new(device(), message_id, TOPIC.into(), broker, signing)
    }

    pub(crate) fn start(&self, config: PublisherConfig) -> (Publisher, Receiver<Event>) {
        let sequence = SequenceFile::open(&self.folder.path().join("state"), &device()).unwrap();
        Publisher::start(config, sequence).unwrap()
    }

    /// Why a publisher with this configuration does not start.
    pub(crate) fn refused(&self, config: PublisherConfig) -> PublishError {
        let sequence = SequenceFile::open(&self.folder.path().join("refused"), &device()).unwrap();
        Publisher::start(config, sequence).unwrap_err()
    }

    pub(crate) fn publish(&self, publisher: &mut Publisher) -> Sequence {
        publisher.publish(TIME, "operational", &self.readings).unwrap()
    }
}

pub(crate) fn verified(payload: &[u8]) -> Reading {
    let document = Document::parse(payload).unwrap();
    let mut canonical = Vec::new();
    document.canonical(&mut canonical);
    assert!(key().check(&canonical, document.hmac().unwrap()));
    json_v1::reading(&document).unwrap()
}

pub(crate) fn sequence(payload: &[u8]) -> u64 {
    verified(payload).sequence.unwrap().get()
}

pub(crate) async fn next(events: &mut Receiver<Event>) -> Event {
    tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("an event in time")
        .expect("a running publisher")
}
