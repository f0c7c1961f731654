//! The envelope against Python: committed vectors, and `json.dumps` itself.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod arbitrary;
mod python;
mod vectors;
