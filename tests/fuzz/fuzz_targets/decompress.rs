//! libFuzzer's door to `targets/decompress.rs`.

#![no_main]

#[allow(dead_code, reason = "the seeds are for the sample, see `sample/main.rs`")]
#[path = "../targets/decompress.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
