//! Strict JSON, and Python's canonical form of it.
//!
//! Written by hand, because no crate refuses duplicate members, keeps numbers as they were
//! spelled, and writes what `json.dumps(…, sort_keys=True)` writes. Reading takes an allocator;
//! writing a text or a float takes none.

#[cfg(feature = "alloc")]
mod canonical;
#[cfg(feature = "alloc")]
mod document;
mod float;
#[cfg(feature = "alloc")]
mod number;
#[cfg(feature = "alloc")]
mod parse;
#[cfg(feature = "alloc")]
mod tape;
mod text;

#[cfg(feature = "alloc")]
pub use document::{Document, Member, Members};
pub use float::write_float;
#[cfg(feature = "alloc")]
pub use parse::{Malformed, Parser};
pub use text::write_text;

/// Largest payload that is parsed, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 65_536;
/// Deepest nesting of objects and lists; the outermost object counts as one.
pub const MAX_DEPTH: usize = 8;
