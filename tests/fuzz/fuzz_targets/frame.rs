//! Whatever is received, frames are split off within bounds and requests read or refused.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ottla::protocol::frame::{self, Incoming};

fuzz_target!(|received: &[u8]| {
    let max_bytes = 1 << 16;
    let mut buffer = BytesMut::from(received);
    while let Ok(Some(body)) = frame::split(&mut buffer, max_bytes) {
        assert!(body.len() <= max_bytes);
        if let Ok(Incoming::Request(header, request)) = frame::decode_request(body) {
            let pieces = frame::encode_request(&header, &request).expect("what was read");
            let mut again = BytesMut::from(&pieces.concat()[..]);
            let body = frame::split(&mut again, usize::MAX).expect("our frame").expect("whole");
            assert!(again.is_empty());
            let back = frame::decode_request(body).expect("our request");
            assert_eq!(back, Incoming::Request(header, request));
        }
    }
});
