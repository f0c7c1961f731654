//! json-v1: the signed message format (docs/envelope.md).
//!
//! Reading takes an allocator, signing takes none.

#[cfg(feature = "alloc")]
mod read;
mod write;

#[cfg(feature = "alloc")]
pub use read::{SchemaError, epoch, reading};
#[cfg(feature = "alloc")]
pub use write::sign;
pub use write::{Draft, sign_into};

/// Longest status text that is kept, in bytes.
pub const MAX_STATUS_BYTES: usize = 64;
