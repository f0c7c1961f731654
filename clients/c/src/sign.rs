//! Signing: json-v1, and cose-v1 attached and detached.

use crate::border::{Refusal, buffer, code, list, shared, text};
use crate::key::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::ffi::c_char;
use tidegate_envelope::cose_v1::{self, MAX_DETACHED_BYTES, TagLength};
use tidegate_envelope::id::{Boot, KeyEpoch, MessageDeviceId, Sequence};
use tidegate_envelope::json_v1;
use tidegate_envelope::reading::{ChannelSlice, MAX_CHANNELS};
use tidegate_envelope::sink::SliceSink;
use tidegate_envelope::time::Timestamp;

/// What makes a message new: `tidegate_fresh` in C.
#[repr(C)]
pub struct Fresh {
    sequence: u64,
    time_us: i64,
    boot: u32,
}

impl Fresh {
    fn checked(&self) -> Result<cose_v1::Freshness, Refusal> {
        Ok(cose_v1::Freshness {
            boot: Boot(self.boot),
            sequence: Sequence::new(self.sequence).ok_or(Refusal::Number)?,
            timestamp: Some(Timestamp::from_micros(self.time_us))
                .filter(|time| *time >= Timestamp::from_micros(0))
                .ok_or(Refusal::Number)?,
        })
    }
}

/// A named value: `tidegate_channel` in C.
#[repr(C)]
pub struct Channel {
    name: *const c_char,
    value: f64,
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: texts end with a zero, `channels` has `count`
/// items, `out` has `room` bytes that no other argument lies in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_sign_json(
    key: *const Key,
    device_id: *const c_char,
    fresh: *const Fresh,
    status: *const c_char,
    channels: *const Channel,
    count: usize,
    out: *mut u8,
    room: usize,
) -> i32 {
    let sign = || {
        // SAFETY: as this function's caller promises.
        let (key, epoch) = unsafe { shared(key) }?.ready()?;
        // SAFETY: as this function's caller promises.
        let fresh = unsafe { shared(fresh) }?.checked()?;
        // SAFETY: as this function's caller promises.
        let device = MessageDeviceId::new(unsafe { text(device_id) }?).map_err(|_| Refusal::Name)?;
        // SAFETY: as this function's caller promises.
        let channels = unsafe { list(channels, count) }?;
        let mut values = [("", 0.0); MAX_CHANNELS];
        let values = values.get_mut(..count).ok_or(Refusal::Values)?;
        for (place, channel) in values.iter_mut().zip(channels) {
            // SAFETY: as this function's caller promises.
            *place = (unsafe { text(channel.name) }?, channel.value);
        }
        let draft = json_v1::Draft {
            device: &device,
            timestamp: fresh.timestamp,
            sequence: fresh.sequence,
            boot: Some(fresh.boot),
            epoch: Some(epoch).filter(|epoch| *epoch != KeyEpoch::default()),
            // SAFETY: as this function's caller promises.
            status: unsafe { text(status) }?,
            channels: &ChannelSlice::new(values).ok_or(Refusal::Values)?,
        };
        // SAFETY: as this function's caller promises.
        let (terminator, out) = unsafe { buffer(out, room) }?
            .split_last_mut()
            .ok_or(Refusal::NoRoom)?;
        let mut sink = SliceSink::new(out);
        json_v1::sign_into(&draft, &key, &mut sink).map_err(|_| Refusal::NoRoom)?;
        let length = sink.written().len();
        // The text is followed by a zero, at the latest in the buffer's last byte.
        *out.get_mut(length).unwrap_or(terminator) = 0;
        Ok(length)
    };
    code(sign())
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: texts end with a zero, `values` has `count`
/// items, `out` has `room` bytes that no other argument lies in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_sign_cose(
    key: *const Key,
    topic: *const c_char,
    fresh: *const Fresh,
    status: u8,
    values: *const f32,
    count: usize,
    short_tag: bool,
    out: *mut u8,
    room: usize,
) -> i32 {
    let sign = || {
        // SAFETY: as this function's caller promises.
        let (key, epoch) = unsafe { shared(key) }?.ready()?;
        // SAFETY: as this function's caller promises.
        let fresh = unsafe { shared(fresh) }?.checked()?;
        // SAFETY: as this function's caller promises.
        let topic = unsafe { text(topic) }?;
        // SAFETY: as this function's caller promises.
        let values = unsafe { list(values, count) }?;
        if values.len() > MAX_CHANNELS || !values.iter().all(|value| value.is_finite()) {
            return Err(Refusal::Values);
        }
        let draft = cose_v1::Draft {
            epoch,
            boot: fresh.boot,
            sequence: fresh.sequence,
            timestamp: fresh.timestamp,
            status,
            values,
        };
        // SAFETY: as this function's caller promises.
        let out = unsafe { buffer(out, room) }?;
        cose_v1::sign_into(&draft, tag_length(short_tag), &key, topic, out).ok_or(Refusal::NoRoom)
    };
    code(sign())
}

/// See `tidegate.h`.
///
/// # Safety
///
/// Every pointer is null or as `tidegate.h` says: texts end with a zero, `payload` has `length`
/// bytes, `out` has `room` bytes that no other argument lies in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_sign_detached(
    key: *const Key,
    topic: *const c_char,
    fresh: *const Fresh,
    payload: *const u8,
    length: usize,
    short_tag: bool,
    out: *mut u8,
    room: usize,
) -> i32 {
    let sign = || {
        // SAFETY: as this function's caller promises.
        let (key, epoch) = unsafe { shared(key) }?.ready()?;
        // SAFETY: as this function's caller promises.
        let fresh = unsafe { shared(fresh) }?.checked()?;
        // SAFETY: as this function's caller promises.
        let topic = unsafe { text(topic) }?;
        // SAFETY: as this function's caller promises.
        let payload = unsafe { list(payload, length) }?;
        let mut structure = [0; MAX_DETACHED_BYTES];
        let tag = tag_length(short_tag);
        let used = cose_v1::sign_detached_into(fresh, epoch, tag, &key, topic, payload, &mut structure)
            .ok_or(Refusal::NoRoom)?;
        // SAFETY: as this function's caller promises.
        let (terminator, out) = unsafe { buffer(out, room) }?
            .split_last_mut()
            .ok_or(Refusal::NoRoom)?;
        let length = URL_SAFE_NO_PAD
            .encode_slice(&structure[..used], out)
            .map_err(|_| Refusal::NoRoom)?;
        *out.get_mut(length).unwrap_or(terminator) = 0;
        Ok(length)
    };
    code(sign())
}

fn tag_length(short_tag: bool) -> TagLength {
    if short_tag {
        TagLength::Short
    } else {
        TagLength::Full
    }
}
