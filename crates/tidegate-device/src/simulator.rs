//! Water sensors of a building over the day, and the faults that can be put on them.
//!
//! Flow follows the demand of a zone; the pressure at the inlet falls as the flow rises; and the
//! pressure lost across the two gates grows with the square of the flow and depends on how far
//! they are open. So the channels explain each other, as they do in a real building. The same
//! seed, device and times give the same readings.

mod demand;
mod fault;
mod noise;
mod sensor;

pub use self::demand::Zone;
pub use self::fault::{Fault, FaultKind};
pub use self::sensor::{Building, SensorModel};

/// Upstream pressure, PSI.
pub const PRESSURE_UPSTREAM: &str = "pressure_upstream";
/// Downstream pressure, PSI.
pub const PRESSURE_DOWNSTREAM: &str = "pressure_downstream";
/// Flow, L/min.
pub const FLOW_RATE: &str = "flow_rate";
/// Position of gate A, percent open.
pub const GATE_A_POSITION: &str = "gate_a_position";
/// Position of gate B, percent open.
pub const GATE_B_POSITION: &str = "gate_b_position";
