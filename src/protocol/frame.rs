//! Frames: a 32-bit length, a header, a body.
//!
//! Pure functions over buffers. The length is checked before anything of that size is allocated,
//! and nothing here reserves memory for bytes that have not arrived: a peer that announces 90 MB
//! and sends 1 KB costs 1 KB.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::protocol::api::{ApiKey, Request, Response, not_served};
use crate::protocol::header::{RequestHeader, ResponseHeader};
use crate::protocol::primitives::{Decoder, Encoder};
use crate::types::Chunk;

/// The size of the length in front of every frame.
pub const PREFIX_BYTES: usize = 4;

/// Reads and checks the length in front of a frame.
///
/// # Errors
///
/// When it is negative or above `max_bytes` (`socket.request.max.bytes`).
pub fn length(prefix: [u8; PREFIX_BYTES], max_bytes: usize) -> Result<usize> {
    let announced = i32::from_be_bytes(prefix);
    match usize::try_from(announced) {
        Ok(length) if length <= max_bytes => Ok(length),
        _ => Err(Error::malformed(
            "frame",
            format!("length {announced} is outside the range 0 to {max_bytes}"),
        )),
    }
}

/// Takes the first complete frame, without its prefix, off the front of the received bytes.
///
/// `None` when more bytes are needed. The caller reads more into `buffer` and grows it with the
/// bytes that arrive, not with the announced length.
///
/// # Errors
///
/// When the announced length is not acceptable; see [`length`].
pub fn split(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Bytes>> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = length(*prefix, max_bytes)?;
    if buffer.len().saturating_sub(PREFIX_BYTES) < length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// A request as it was received.
#[expect(
    clippy::large_enum_variant,
    reason = "destructured at once; a box would cost an allocation"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A request to be served.
    Request(RequestHeader, Request),
    /// ApiVersions at a version that we do not know: to be answered, at version 0, by
    /// [`api_versions_fallback`](crate::protocol::api::api_versions_fallback); never by closing
    /// the connection (KIP-511).
    UnknownApiVersions(RequestHeader),
}

/// Reads a frame that a client sent.
///
/// # Errors
///
/// When the API is not served, not at this version, or when the bytes do not follow the protocol:
/// the connection is to be closed.
pub fn decode_request(frame: Bytes) -> Result<Incoming> {
    let mut decoder = Decoder::new(frame);
    let header = RequestHeader::decode(&mut decoder)?;
    let api = header
        .api()
        .filter(|api| api.is_served())
        .ok_or_else(|| not_served(format_args!("API {}", header.api_key)))?;
    if api == ApiKey::ApiVersions && !api.supports(header.api_version) {
        return Ok(Incoming::UnknownApiVersions(header));
    }
    let request = Request::decode(api, header.api_version, &mut decoder)?;
    Ok(Incoming::Request(header, request))
}

/// Reads the header of a frame that a client sent, even that of an unknown API or version.
///
/// # Errors
///
/// When the bytes do not follow the protocol.
pub fn request_header(frame: Bytes) -> Result<RequestHeader> {
    RequestHeader::decode(&mut Decoder::new(frame))
}

/// Builds the frame of a request; record sets are spliced in.
///
/// # Errors
///
/// When the version cannot carry the request.
pub fn encode_request(header: &RequestHeader, request: &Request) -> Result<Vec<Chunk>> {
    let mut encoder = Encoder::for_frame();
    header.encode(&mut encoder)?;
    request.encode(header.api_version, &mut encoder)?;
    encoder.finish_frame()
}

/// Reads a frame that answers a request to `api` at `version`.
///
/// # Errors
///
/// When the bytes do not follow the protocol.
pub fn decode_response(
    api: ApiKey,
    version: i16,
    frame: Bytes,
) -> Result<(ResponseHeader, Response)> {
    let mut decoder = Decoder::new(frame);
    let header = ResponseHeader::decode(api, version, &mut decoder)?;
    Ok((header, Response::decode(api, version, &mut decoder)?))
}

/// Builds the frame of a response; record sets are spliced in.
///
/// # Errors
///
/// When the version cannot carry the response.
pub fn encode_response(
    correlation_id: i32,
    version: i16,
    response: &Response,
) -> Result<Vec<Chunk>> {
    let mut encoder = Encoder::for_frame();
    ResponseHeader { correlation_id }.encode(response.api(), version, &mut encoder)?;
    response.encode(version, &mut encoder)?;
    encoder.finish_frame()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    const MAX_BYTES: usize = 100;

    #[track_caller]
    fn check_split(received: &[u8], frames: &[&[u8]], left: usize) {
        let mut buffer = BytesMut::from(received);
        for &frame in frames {
            assert_eq!(split(&mut buffer, MAX_BYTES).unwrap().unwrap(), frame);
        }
        assert_eq!(split(&mut buffer, MAX_BYTES).unwrap(), None);
        assert_eq!(buffer.len(), left);
    }

    #[test]
    fn frames_are_split_off_as_they_become_whole() {
        check_split(&[], &[], 0);
        check_split(&[0, 0, 0], &[], 3);
        check_split(&[0, 0, 0, 2, 7], &[], 5);
        check_split(&[0, 0, 0, 2, 7, 8], &[&[7, 8]], 0);
        check_split(&[0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 9, 1], &[&[7], &[]], 5);
    }

    #[test]
    fn an_announced_length_is_checked_before_its_bytes_arrive() {
        for prefix in [[0xff; 4], [0x80, 0, 0, 0], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 101]] {
            let error = split(&mut BytesMut::from(&prefix[..]), MAX_BYTES).unwrap_err();
            assert!(error.to_string().contains("outside the range 0 to 100"), "{error}");
        }
        assert_eq!(length([0, 0, 0, 100], MAX_BYTES).unwrap(), 100);
    }

    #[test]
    fn an_unknown_api_or_version_is_refused() {
        // API 999; SaslHandshake, which is not served; Produce 2, which is advertised but refused.
        for (api, version) in [(999_i16, 0_i16), (17, 1), (0, 2), (1, 19), (-1, 0)] {
            let mut frame = BytesMut::new();
            frame.extend_from_slice(&api.to_be_bytes());
            frame.extend_from_slice(&version.to_be_bytes());
            frame.extend_from_slice(&[0; 40]);
            let error = decode_request(frame.freeze()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::UnsupportedVersion, "{api} {version}");
        }
    }
}
