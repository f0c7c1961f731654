//! The detect thread: what do the accepted readings say, and who says nothing any more?

use super::Journal;
use super::describe;
use super::gate::Released;
use super::memory::Memory;
use crate::clock;
use std::collections::HashSet;
use std::sync::Arc;
use tidegate_detect::detector::Detector;
use tidegate_envelope::id::DeviceIndex;
use tidegate_verify::registry::Registry;
use tokio::sync::mpsc;

pub(super) struct Detect {
    pub(super) detector: Option<Detector>,
    /// Where the detector's memory lies.
    pub(super) memory: Option<Memory>,
    /// Devices of which it has been said that they are silent.
    pub(super) silent: HashSet<DeviceIndex>,
    pub(super) released: mpsc::Receiver<Released>,
    pub(super) journal: Journal,
    pub(super) registry: Arc<Registry>,
    pub(super) protected: bool,
    pub(super) demo: bool,
}

impl Detect {
    /// Runs until the gate thread has ended and everything it released is shown.
    pub(super) fn run(mut self) {
        while let Some(released) = self.released.blocking_recv() {
            let (admission, origin) = match released {
                Released::Message { admission, origin } => (admission, origin),
                Released::Registry(registry) => {
                    self.adopt(registry);
                    continue;
                }
                Released::Tick => {
                    self.tick();
                    continue;
                }
            };
            let assessment = self
                .detector
                .as_mut()
                .and_then(|detector| detector.assess_fresh(&admission));
            let message = &admission.get().message;
            if let (Some(memory), Some(device)) = (&mut self.memory, message.device) {
                memory.heard(device, message.received_at);
                self.silent.remove(&device);
            }
            for event in describe::notices(&self.registry, &admission, &origin) {
                self.journal.publish(event);
            }
            let mut event = describe::accepted(
                &self.registry,
                &admission,
                assessment.as_ref(),
                &origin,
                self.protected,
            );
            if self.demo && event.reason.is_none() {
                event.reason = describe::got_in(&origin);
            }
            self.journal.publish(event);
        }
        if let (Some(memory), Some(detector)) = (&mut self.memory, &self.detector) {
            memory.save(detector, &self.registry);
        }
    }

    /// Says of each device once that it is silent, and keeps the memory.
    fn tick(&mut self) {
        let Some(detector) = &self.detector else { return };
        let now = clock::now();
        for (device, why) in detector.silent(now) {
            if self.silent.insert(device) {
                self.journal
                    .publish(describe::silent(&self.registry, device, &why, now));
            }
        }
        if let Some(memory) = &mut self.memory {
            memory.save_if_due(detector, &self.registry);
        }
    }

    fn adopt(&mut self, registry: Arc<Registry>) {
        if let Some(detector) = &mut self.detector {
            let further = registry.devices().iter().skip(detector.devices());
            detector.append(further.map(|device| &device.id));
        }
        self.registry = registry;
    }
}
