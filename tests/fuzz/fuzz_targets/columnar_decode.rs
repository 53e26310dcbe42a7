//! libFuzzer's door to `targets/columnar_decode.rs`.

#![no_main]

#[allow(dead_code, reason = "the seeds are for the sample, see `sample/main.rs`")]
#[path = "../targets/columnar_decode.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
