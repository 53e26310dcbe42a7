//! Whatever is received, frames are split off within bounds, and requests are read or refused.

use bytes::BytesMut;
use ottla::protocol::frame::{self, Incoming};

pub(crate) fn run(received: &[u8]) {
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
}

/// A Metadata and an ApiVersions request.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frame = |api: i16, version: i16, body: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend(i32::try_from(10 + 1 + body.len()).expect("small").to_be_bytes());
        bytes.extend([api.to_be_bytes(), version.to_be_bytes()].concat());
        bytes.extend(7_i32.to_be_bytes());
        bytes.extend([0, 1, b'c']);
        bytes.extend(body);
        bytes
    };
    let metadata = frame(3, 4, &[0, 0, 0, 1, 0, 1, b't', 1]);
    let versions = frame(18, 0, &[]);
    let both = [metadata.clone(), versions.clone()].concat();
    vec![metadata, versions, both]
}
