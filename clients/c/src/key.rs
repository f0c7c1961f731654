//! Keys as C keeps them: plain bytes, which may lie in flash and be copied.

use crate::border::{Refusal, code, exclusive, list, shared, text};
use core::ffi::c_char;
use tidegate_envelope::id::{DeviceId, KeyEpoch};
use tidegate_envelope::key::{MacKey, RootKey};
use zeroize::Zeroize;

const DERIVED_BYTES: usize = 32;
const MAX_KEY_BYTES: usize = 64;

/// A signing key: `tidegate_key` in C.
///
/// Its bytes, and not the two hash states that HMAC makes of them: those would be opaque to C,
/// and take two of the six hash blocks or so that a signature takes.
#[repr(C)]
pub struct Key {
    bytes: [u8; MAX_KEY_BYTES],
    length: u16,
    epoch: u16,
}

impl Key {
    /// The key for signing, and the epoch that messages name.
    pub(crate) fn ready(&self) -> Result<(MacKey, KeyEpoch), Refusal> {
        let bytes = self.bytes.get(..usize::from(self.length));
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(Refusal::Number)?;
        Ok((MacKey::from_bytes(bytes), KeyEpoch(self.epoch)))
    }

    fn set(&mut self, bytes: &[u8], epoch: u16) -> Result<usize, Refusal> {
        if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
            return Err(Refusal::Number);
        }
        self.bytes.zeroize();
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.length = bytes.len() as u16;
        self.epoch = epoch;
        Ok(0)
    }
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: `root` has 32 bytes, `device` ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_key_derive(
    key: *mut Key,
    root: *const [u8; DERIVED_BYTES],
    device: *const c_char,
    epoch: u16,
) -> i32 {
    let derive = || {
        // SAFETY: as this function's caller promises.
        let key = unsafe { exclusive(key) }?;
        // SAFETY: as this function's caller promises.
        let root = RootKey::from_bytes(*unsafe { shared(root) }?);
        // SAFETY: as this function's caller promises.
        let device = DeviceId::new(unsafe { text(device) }?).map_err(|_| Refusal::Name)?;
        let mut bytes = root.device_key(&device, KeyEpoch(epoch));
        let set = key.set(&bytes, epoch);
        bytes.zeroize();
        set
    };
    code(derive())
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: `bytes` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_key_load(
    key: *mut Key,
    bytes: *const u8,
    length: usize,
    epoch: u16,
) -> i32 {
    let load = || {
        // SAFETY: as this function's caller promises.
        let key = unsafe { exclusive(key) }?;
        // SAFETY: as this function's caller promises.
        key.set(unsafe { list(bytes, length) }?, epoch)
    };
    code(load())
}

/// See `tidegate.h`.
///
/// # Safety
///
/// `key` is null, or points to a key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_key_wipe(key: *mut Key) {
    // SAFETY: as this function's caller promises.
    if let Ok(key) = unsafe { exclusive(key) } {
        key.bytes.zeroize();
        key.length = 0;
        key.epoch = 0;
    }
}
