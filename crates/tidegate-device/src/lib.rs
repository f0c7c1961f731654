//! The publisher: signs, timestamps and counts; and the simulated sensors.
