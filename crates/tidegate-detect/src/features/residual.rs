//! What a value should be, given the other channels: the difference is a residual.
//!
//! Water sensors have two with physics in them: head loss over the gates, and supply pressure under
//! load. Any other channel is a linear function of the others.

use super::profile::ChannelProfile;
use crate::channel::{MAX_TRACKED, WATER};
use serde::{Deserialize, Serialize};

/// Most terms of one regression.
pub(crate) const MAX_TERMS: usize = MAX_TRACKED;

/// Which regression a residual is of. Channel positions are those of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Basis {
    /// p_up − p_down on 1, q, q², q²a, q²b, q²a², q²b², q²ab: q flow, a and b gate positions.
    HeadLoss(WaterChannels),
    /// p_up on 1, q, q².
    Supply(WaterChannels),
    /// The channel `target` on 1 and every other channel.
    Linear {
        /// The channel explained.
        target: u8,
    },
}

/// Where the water channels stand among a device's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaterChannels {
    /// `flow_rate`.
    pub flow: u8,
    /// `gate_a_position`.
    pub gate_a: u8,
    /// `gate_b_position`.
    pub gate_b: u8,
    /// `pressure_downstream`.
    pub downstream: u8,
    /// `pressure_upstream`.
    pub upstream: u8,
}

/// One row of a regression.
pub(crate) struct Equation {
    /// The value explained, in the channel's unit.
    pub(crate) target: f64,
    terms: [f64; MAX_TERMS],
    count: usize,
}

impl Equation {
    pub(crate) fn terms(&self) -> &[f64] {
        &self.terms[..self.count]
    }
}

impl Basis {
    /// The residuals of a device with these channels: the two of water where all five water
    /// channels are there, and a linear one for each other channel.
    pub(crate) fn for_channels(names: &[&str]) -> Vec<Self> {
        let position = |name: &str| names.iter().position(|&n| n == name).map(|i| i as u8);
        let water = match WATER.map(position) {
            [
                Some(flow),
                Some(gate_a),
                Some(gate_b),
                Some(downstream),
                Some(upstream),
            ] => Some(WaterChannels {
                flow,
                gate_a,
                gate_b,
                downstream,
                upstream,
            }),
            _ => None,
        };
        let explained = |name: &str| water.is_some() && WATER.contains(&name);
        let linear = (0_u8..).zip(names).filter(|(_, name)| !explained(name));
        water
            .into_iter()
            .flat_map(|at| [Self::HeadLoss(at), Self::Supply(at)])
            .chain(linear.map(|(target, _)| Self::Linear { target }))
            .collect()
    }

    /// The regression's row for the values `x` of `channels`.
    pub(crate) fn equation(self, channels: &[ChannelProfile], x: &[f64]) -> Equation {
        let mut terms = [0.0; MAX_TERMS];
        let standard = |at: u8| channels[usize::from(at)].standard(x[usize::from(at)]);
        let value = |at: u8| x[usize::from(at)];
        let (target, count) = match self {
            Self::HeadLoss(at) => {
                let q = value(at.flow) / channels[usize::from(at.flow)].size();
                let (a, b, q2) = (standard(at.gate_a), standard(at.gate_b), q * q);
                terms[..8].copy_from_slice(&[1.0, q, q2, q2 * a, q2 * b, q2 * a * a, q2 * b * b, q2 * a * b]);
                (value(at.upstream) - value(at.downstream), 8)
            }
            Self::Supply(at) => {
                let q = value(at.flow) / channels[usize::from(at.flow)].size();
                terms[..3].copy_from_slice(&[1.0, q, q * q]);
                (value(at.upstream), 3)
            }
            Self::Linear { target } => {
                terms[0] = 1.0;
                let others = (0..channels.len() as u8).filter(|&other| other != target);
                for (term, other) in terms[1..].iter_mut().zip(others) {
                    *term = standard(other);
                }
                (value(target), channels.len())
            }
        };
        Equation { target, terms, count }
    }

    /// How steeply the explained value follows flow, per L/min: the flow sensor's noise comes
    /// through by this factor. 0 where no one channel drives the regression.
    pub(crate) fn slope(self, channels: &[ChannelProfile], equation: &Equation, weights: &[f64]) -> f64 {
        let size = |at: WaterChannels| channels[usize::from(at.flow)].size();
        let terms = equation.terms();
        match self {
            // Each term from the second on is q² times something: its derivative is twice it over q.
            Self::HeadLoss(at) => {
                let q = terms[1];
                let bend: f64 = terms[2..].iter().zip(&weights[2..]).map(|(t, w)| t * w).sum();
                let bend = if q == 0.0 { 0.0 } else { 2.0 * bend / q };
                (weights[1] + bend) / size(at)
            }
            Self::Supply(at) => (weights[1] + 2.0 * weights[2] * terms[1]) / size(at),
            Self::Linear { .. } => 0.0,
        }
    }

    /// How many terms the regression has for a device of `channels` channels.
    pub(crate) fn term_count(self, channels: usize) -> usize {
        match self {
            Self::HeadLoss(_) => 8,
            Self::Supply(_) => 3,
            Self::Linear { .. } => channels,
        }
    }

    /// The largest channel position it uses.
    pub(crate) fn last_channel(self) -> u8 {
        match self {
            Self::HeadLoss(at) | Self::Supply(at) => at
                .flow
                .max(at.gate_a)
                .max(at.gate_b)
                .max(at.downstream)
                .max(at.upstream),
            Self::Linear { target } => target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_water_channels_give_the_two_water_residuals() {
        assert!(matches!(
            Basis::for_channels(&WATER)[..],
            [Basis::HeadLoss(_), Basis::Supply(_)]
        ));
    }

    #[test]
    fn one_water_channel_short_every_channel_is_linear() {
        let bases = Basis::for_channels(&WATER[1..]);
        assert_eq!(bases.len(), 4);
        assert!(bases.iter().all(|basis| matches!(basis, Basis::Linear { .. })));
    }

    #[test]
    fn a_further_channel_beside_water_is_linear() {
        let mut names = WATER.to_vec();
        names.push("temperature");
        assert!(matches!(
            Basis::for_channels(&names)[..],
            [_, _, Basis::Linear { target: 5 }]
        ));
    }
}
