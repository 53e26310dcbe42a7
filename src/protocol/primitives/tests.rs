//! Tests of both cursors and of the types between them.

#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "these are tests")]

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::{ErrorCode, Result};
use crate::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::messages::fetch::{FetchRequest, ForgottenTopic};
use crate::protocol::messages::metadata::MetadataRequest;
use crate::protocol::schema::Message;

fn decode<M: Message>(version: i16, bytes: &[u8]) -> Result<M> {
    M::decode(&mut Decoder::new(Bytes::copy_from_slice(bytes)), version)
}

fn encode(message: &impl Message, version: i16) -> Result<Bytes> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version)?;
    Ok(encoder.finish_joined())
}

#[track_caller]
fn check_refused<M: Message>(version: i16, bytes: &[u8], why: &str) {
    let error = decode::<M>(version, bytes).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let plain: ApiVersionsRequest = decode(3, &[2, b'a', 2, b'1', 0]).unwrap();
    let tagged = [2, b'a', 2, b'1', 2, 0x00, 1, 0xff, 0x85, 0x01, 3, 1, 2, 3];
    assert_eq!(decode::<ApiVersionsRequest>(3, &tagged).unwrap(), plain);
}

#[test]
fn a_tagged_field_must_be_as_long_as_it_says() {
    // ApiVersions response: no error, no APIs, no throttling, then one tagged field.
    let with_tag = |field: &[u8]| [&[0, 0, 1, 0, 0, 0, 0, 1], field].concat();
    let right = with_tag(&[1, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
    let response: ApiVersionsResponse = decode(3, &right).unwrap();
    assert_eq!(response.finalized_features_epoch, 5);
    let longer = with_tag(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0]);
    check_refused::<ApiVersionsResponse>(3, &longer, "1 bytes too long");
    let shorter = with_tag(&[1, 7, 0, 0, 0, 0, 0, 0, 0, 5]);
    check_refused::<ApiVersionsResponse>(3, &shorter, "8 bytes wanted, 7 left");
    let beyond = with_tag(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    check_refused::<ApiVersionsResponse>(3, &beyond, "bytes wanted, 0 left");
}

#[test]
fn a_default_is_not_written_among_the_tagged_fields() {
    let response = ApiVersionsResponse::default();
    assert_eq!(encode(&response, 3).unwrap()[..], [0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn impossible_lengths_are_refused() {
    check_refused::<MetadataRequest>(1, &[0xff, 0xff, 0xff, 0xfe], "negative length");
    check_refused::<MetadataRequest>(1, &[0x80, 0, 0, 0], "negative length");
    check_refused::<MetadataRequest>(1, &[0x7f, 0xff, 0xff, 0xff], "2147483647 elements announced");
    check_refused::<MetadataRequest>(0, &[0xff; 4], "null where a value is required");
    check_refused::<MetadataRequest>(
        1,
        &[0, 0, 0, 1, 0xff, 0xff],
        "null where a value is \
         required",
    );
    check_refused::<MetadataRequest>(1, &[0, 0, 0, 1, 0x80, 0], "negative length");
    check_refused::<MetadataRequest>(1, &[0, 0, 0, 1, 0, 9, b'a'], "9 bytes wanted, 1 left");
    check_refused::<MetadataRequest>(1, &[0, 0, 0, 1, 0, 1, 0xff], "not UTF-8");
    check_refused::<ApiVersionsRequest>(3, &[0xff; 9], "more than 32 bits");
    let compact_2_gib = [0x81, 0x80, 0x80, 0x80, 0x08];
    check_refused::<ApiVersionsRequest>(3, &compact_2_gib, "a length of 2147483648");
    check_refused::<ApiVersionsRequest>(3, &[], "ClientSoftwareName");
}

#[test]
fn a_count_out_of_proportion_is_refused_though_its_bytes_are_there() {
    let mut bytes = 100_000_i32.to_be_bytes().to_vec();
    bytes.resize(4 + 200_000, 0);
    // Empty names: two bytes each on the wire, several times that in memory.
    let within = decode::<MetadataRequest>(1, &bytes).unwrap();
    assert_eq!(within.topics.unwrap().len(), 100_000);
    // As many topics as there are bytes left: each needs at least three, which only the budget
    // knows.
    let mut bytes = vec![0x81, 0x80, 0x08];
    bytes.resize(3 + 131_072, 1);
    check_refused::<MetadataRequest>(9, &bytes, "131072 elements out of proportion");
}

#[test]
fn a_value_that_the_version_cannot_carry_is_an_error_unless_ignorable() {
    let ignorable = FetchRequest { rack_id: "r".into(), ..FetchRequest::default() };
    assert!(encode(&ignorable, 10).is_ok());
    let mut request = FetchRequest::default();
    request.forgotten_topics_data.push(ForgottenTopic::default());
    let error = encode(&request, 6).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    assert!(error.to_string().contains("ForgottenTopicsData"), "{error}");
    assert!(encode(&request, 7).is_ok());
    let error = encode(&MetadataRequest { topics: None, ..Default::default() }, 0).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
}

#[test]
fn a_version_outside_of_the_table_is_refused() {
    for version in [-1, 3, 19] {
        let error = decode::<FetchRequest>(version, &[0; 100]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
        let error = encode(&FetchRequest::default(), version).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    }
}

#[test]
fn a_string_too_long_for_the_protocol_is_an_error_on_both_sides() {
    let name = "n".repeat(STRING_MAX_BYTES);
    let request =
        ApiVersionsRequest { client_software_name: name.as_str().into(), ..Default::default() };
    let bytes = encode(&request, 3).unwrap();
    assert_eq!(decode::<ApiVersionsRequest>(3, &bytes).unwrap(), request);
    let longer = format!("{name}n");
    let request =
        ApiVersionsRequest { client_software_name: longer.as_str().into(), ..Default::default() };
    assert!(encode(&request, 3).unwrap_err().to_string().contains("ClientSoftwareName"));
}

#[test]
fn large_pieces_are_spliced_and_small_ones_copied() {
    let large = Bytes::from(vec![7; SPLICE_MIN_BYTES]);
    let mut encoder = Encoder::new();
    encoder.put_i32(1);
    encoder.put_bytes(&large);
    encoder.put_bytes(&large);
    encoder.put_bytes(&Bytes::from_static(b"small"));
    assert_eq!(encoder.len(), 4 + 2 * SPLICE_MIN_BYTES + 5);
    let pieces = encoder.finish();
    assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [4, 1024, 1024, 5]);
    assert_eq!(pieces[1].as_ptr(), large.as_ptr());
}

#[test]
fn records_are_equal_however_they_are_cut() {
    let whole = Records::from(Bytes::from_static(b"abcdef"));
    let cut: Records = ["ab", "", "cde", "f"]
        .into_iter()
        .map(|chunk| Bytes::from_static(chunk.as_bytes()))
        .collect();
    assert_eq!(whole, cut);
    assert_eq!((cut.len(), cut.chunks().count()), (6, 3));
    assert_eq!(cut.into_bytes(), "abcdef");
    assert!(Records::from(Bytes::new()).is_empty());
    assert_eq!(Records::new().chunks().count(), 0);
}

#[test]
fn maps_of_str_are_searched_by_plain_text() {
    let hashed = HashMap::from([(Str::from("topic"), 1)]);
    assert_eq!(hashed.get("topic"), Some(&1));
    let sorted = BTreeMap::from([(Str::from_static("topic"), 1)]);
    assert_eq!(sorted.get("topic"), Some(&1));
    assert_eq!(Str::from_utf8(Bytes::from_static(&[0xff])), None);
}

proptest! {
    #[test]
    fn a_varint_comes_back(value: u32) {
        let mut encoder = Encoder::new();
        encoder.put_unsigned_varint(value);
        let mut decoder = Decoder::new(encoder.finish_joined());
        prop_assert_eq!(decoder.get_unsigned_varint().unwrap(), value);
        prop_assert!(decoder.is_empty());
    }
}
