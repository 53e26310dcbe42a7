//! A request body of any served API and version: an error, or a message that comes back.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::protocol::api::KNOWN;
use ottla::protocol::{Decoder, Encoder, Request};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (api, version, body) = input;
    let entry = &KNOWN[usize::from(api) % KNOWN.len()];
    let count = entry.versions.max - entry.versions.min + 1;
    let version = entry.versions.min + i16::from(version) % count;
    let mut decoder = Decoder::new(Bytes::copy_from_slice(body));
    if let Ok(request) = Request::decode(entry.api, version, &mut decoder) {
        let mut encoder = Encoder::new();
        request.encode(version, &mut encoder).expect("what was read can be written");
        let mut decoder = Decoder::new(encoder.finish_joined());
        let back = Request::decode(entry.api, version, &mut decoder).expect("our own bytes");
        assert_eq!(back, request);
        assert!(decoder.is_empty());
    }
});
