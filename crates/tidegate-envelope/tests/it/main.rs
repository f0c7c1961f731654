//! The envelope against Python: committed vectors, `json.dumps` itself, and pycose; and called from C.

#![expect(clippy::unwrap_used, reason = "tests state their expectations by unwrapping")]

mod arbitrary;
mod c_library;
mod cose_properties;
mod cose_vectors;
mod pycose;
mod python;
mod tags;
mod time;
mod vectors;
