//! The border to C: pointers become references, and results become numbers.

use core::ffi::{CStr, c_char};

/// Why a call did nothing. The numbers are part of the C interface.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Refusal {
    /// A pointer is null.
    Null = -1,
    /// The buffer is too small.
    NoRoom = -2,
    /// A device name is not one.
    Name = -3,
    /// A text is not UTF-8.
    Text = -4,
    /// Too many values, one that is not finite, or a channel that stands twice or has too long a
    /// name.
    Values = -5,
    /// A sequence, time or key length is outside its range.
    Number = -6,
    /// The time answer is not the gateway's to this question.
    NotAuthentic = -7,
}

/// A length, or the number of a refusal.
pub(crate) fn code(result: Result<usize, Refusal>) -> i32 {
    match result {
        // What is signed is bounded by the caller's memory; beyond 2 GiB the length is cut.
        Ok(length) => i32::try_from(length).unwrap_or(i32::MAX),
        Err(refusal) => refusal as i32,
    }
}

/// The text of a C string.
///
/// # Safety
///
/// `pointer` is null, or points to bytes that end with a zero and do not change during `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a str, Refusal> {
    if pointer.is_null() {
        return Err(Refusal::Null);
    }
    // SAFETY: not null, and ends with a zero, as the caller promises.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Refusal::Text)
}

/// A value that C owns.
///
/// # Safety
///
/// `pointer` is null, or points to a valid, aligned `T` that does not change during `'a`.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Refusal> {
    // SAFETY: null gives none; else as the caller promises.
    unsafe { pointer.as_ref() }.ok_or(Refusal::Null)
}

/// A value that C owns and wants written.
///
/// # Safety
///
/// `pointer` is null, or points to a valid, aligned `T` that nothing else uses during `'a`.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T) -> Result<&'a mut T, Refusal> {
    // SAFETY: null gives none; else as the caller promises.
    unsafe { pointer.as_mut() }.ok_or(Refusal::Null)
}

/// `length` items from `pointer` on. Null is an empty list where `length` is 0.
///
/// # Safety
///
/// `pointer` is null, or points to `length` valid, aligned items that do not change during `'a`.
pub(crate) unsafe fn list<'a, T>(pointer: *const T, length: usize) -> Result<&'a [T], Refusal> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Refusal::Null),
        // SAFETY: not null, and as long as the caller promises.
        (false, _) => Ok(unsafe { core::slice::from_raw_parts(pointer, length) }),
    }
}

/// A buffer of `room` bytes.
///
/// # Safety
///
/// `pointer` is null, or points to `room` initialised bytes that nothing else uses during `'a`.
pub(crate) unsafe fn buffer<'a>(pointer: *mut u8, room: usize) -> Result<&'a mut [u8], Refusal> {
    match (pointer.is_null(), room) {
        (_, 0) => Err(Refusal::NoRoom),
        (true, _) => Err(Refusal::Null),
        // SAFETY: not null, and as long as the caller promises.
        (false, _) => Ok(unsafe { core::slice::from_raw_parts_mut(pointer, room) }),
    }
}
