//! The envelope against Python: committed vectors, and `json.dumps` itself.

mod arbitrary;
mod python;
mod timing;
mod vectors;
