#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| reqwest_reauth::fuzzing::device_authorization(input));
