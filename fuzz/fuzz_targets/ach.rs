#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtill::ach::returned::fuzz(bytes));
