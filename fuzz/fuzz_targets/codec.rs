#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtill::media::codec::fuzz(bytes));
