//! The detect thread: what do the accepted readings say?

use super::Journal;
use super::describe;
use super::gate::Released;
use std::sync::Arc;
use tidegate_detect::detector::Detector;
use tidegate_verify::registry::Registry;
use tokio::sync::mpsc;

pub(super) struct Detect {
    pub(super) detector: Option<Detector>,
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
            };
            let assessment = self
                .detector
                .as_mut()
                .and_then(|detector| detector.assess_fresh(&admission));
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
    }

    fn adopt(&mut self, registry: Arc<Registry>) {
        if let Some(detector) = &mut self.detector {
            let further = registry.devices().iter().skip(detector.devices());
            detector.append(further.map(|device| &device.id));
        }
        self.registry = registry;
    }
}
