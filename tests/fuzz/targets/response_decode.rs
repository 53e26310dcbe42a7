//! A response body of any served API and version: an error, or a message that comes back.

use bytes::Bytes;
use ottla::protocol::api::KNOWN;
use ottla::protocol::{Decoder, Encoder, Response};

pub(crate) fn run(input: &[u8]) {
    let &[api, version, ref body @ ..] = input else { return };
    let entry = &KNOWN[usize::from(api) % KNOWN.len()];
    let count = entry.versions.max - entry.versions.min + 1;
    let version = entry.versions.min + i16::from(version) % count;
    let mut decoder = Decoder::new(Bytes::copy_from_slice(body));
    if let Ok(response) = Response::decode(entry.api, version, &mut decoder) {
        let mut encoder = Encoder::new();
        response.encode(version, &mut encoder).expect("what was read can be written");
        let mut decoder = Decoder::new(encoder.finish_joined());
        let back = Response::decode(entry.api, version, &mut decoder).expect("our own bytes");
        assert_eq!(back, response);
        assert!(decoder.is_empty());
    }
}

/// Of every API and version: nothing, zeros, and small counts, which most of them read as a message.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (api, entry) in (0_u8..).zip(KNOWN) {
        let count = entry.versions.max - entry.versions.min + 1;
        for version in 0..u8::try_from(count).expect("few versions") {
            seeds.push([&[api, version][..], &[0; 96]].concat());
            seeds.push([&[api, version][..], &[0, 0, 0, 2, 0, 1, b't', 1].repeat(12)].concat());
        }
    }
    seeds
}
