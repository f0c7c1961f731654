//! See the module `configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_fuzz::configuration::check_registry(bytes));
