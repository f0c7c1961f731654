//! The time from the gateway, for a device without a clock.

use crate::border::{Refusal, buffer, code, exclusive, list, shared, text};
use crate::key::Key;
use core::ffi::c_char;
use tidegate_envelope::id::DeviceId;
use tidegate_envelope::time_echo::{NONCE_BYTES, Nonce, REQUEST_BYTES, check_answer, request_bytes};

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: `nonce` has 16 bytes, `out` has `room` bytes
/// that `nonce` does not lie in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_time_request(
    nonce: *const [u8; NONCE_BYTES],
    out: *mut u8,
    room: usize,
) -> i32 {
    let request = || {
        // SAFETY: as this function's caller promises.
        let request = request_bytes(&Nonce(*unsafe { shared(nonce) }?));
        // SAFETY: as this function's caller promises.
        let out = unsafe { buffer(out, room) }?;
        let (text, rest) = out
            .split_first_chunk_mut::<REQUEST_BYTES>()
            .ok_or(Refusal::NoRoom)?;
        *rest.first_mut().ok_or(Refusal::NoRoom)? = 0;
        *text = request;
        Ok(REQUEST_BYTES)
    };
    code(request())
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: `device` ends with a zero, `nonce` has 16 bytes,
/// `answer` has `length` bytes, `time_us` lies in none of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_time_check(
    key: *const Key,
    device: *const c_char,
    nonce: *const [u8; NONCE_BYTES],
    answer: *const u8,
    length: usize,
    time_us: *mut i64,
) -> i32 {
    let check = || {
        // SAFETY: as this function's caller promises.
        let (key, epoch) = unsafe { shared(key) }?.ready()?;
        // SAFETY: as this function's caller promises.
        let device = DeviceId::new(unsafe { text(device) }?).map_err(|_| Refusal::Name)?;
        // SAFETY: as this function's caller promises.
        let nonce = Nonce(*unsafe { shared(nonce) }?);
        // SAFETY: as this function's caller promises.
        let answer = unsafe { list(answer, length) }?;
        // SAFETY: as this function's caller promises.
        let time_us = unsafe { exclusive(time_us) }?;
        let time = check_answer(answer, &nonce, &device, epoch, &key).ok_or(Refusal::NotAuthentic)?;
        *time_us = time.as_micros();
        Ok(0)
    };
    code(check())
}
