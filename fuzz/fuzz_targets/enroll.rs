//! See the module of the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::enroll::check(bytes));
