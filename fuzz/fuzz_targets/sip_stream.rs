#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtill::sip::wire::fuzz_stream(bytes));
