#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokend::fuzzing::raw(data));
