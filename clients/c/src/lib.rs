//! Signing for devices without an operating system, called from C (`include/tidegate.h`).
//!
//! - `key`: derives, loads and wipes keys
//! - `sign`: json-v1, and cose-v1 attached and detached
//! - `time`: the time from the gateway, for a device without a clock
//! - `border`: pointers from C become references, and results become numbers
//!
//! **Invariant**: neither std nor an allocator. Nothing is kept between two calls, so any thread
//! or interrupt may call.
#![no_std]

mod border;
mod key;
mod sign;
mod time;

/// Nothing here panics on any input. Should it happen all the same, the device stands still until
/// its watchdog resets it, instead of signing what nobody meant.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
