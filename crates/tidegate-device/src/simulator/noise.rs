//! Random values that remember: first-order autoregressive noise at any sampling interval.

use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Noise with standard deviation `deviation` whose memory fades to 1/e in `memory_s` seconds
/// (AR(1) where sampling is regular).
#[derive(Debug, Clone)]
pub(super) struct Noise {
    deviation: f64,
    memory_s: f64,
    value: f64,
}

impl Noise {
    pub(super) fn new(deviation: f64, memory_s: f64, random: &mut StdRng) -> Self {
        Self {
            deviation,
            memory_s,
            value: deviation * normal(random),
        }
    }

    /// The value `elapsed_s` later. Exact for any interval: no step size is built in.
    pub(super) fn after(&mut self, elapsed_s: f64, random: &mut StdRng) -> f64 {
        let kept = (-elapsed_s / self.memory_s).exp();
        self.value = kept * self.value + self.deviation * (1.0 - kept * kept).sqrt() * normal(random);
        self.value
    }
}

fn normal(random: &mut StdRng) -> f64 {
    StandardNormal.sample(random)
}
