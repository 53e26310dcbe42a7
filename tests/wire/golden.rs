//! A few messages as the bytes they must be, written by hand from the protocol's rules.

use bytes::Bytes;
use ottla::protocol::frame::{self, Incoming};
use ottla::protocol::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse,
};
use ottla::protocol::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::protocol::{ApiKey, Records, Request, RequestHeader, Response, Str, api};

fn bytes_of(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[track_caller]
fn check_request(header: &RequestHeader, request: impl Into<Request>, expected: &str) {
    let request = request.into();
    let frame = frame::encode_request(header, &request).unwrap().concat();
    assert_eq!(frame, bytes_of(expected));
    let body = Bytes::from(frame).slice(frame::PREFIX_BYTES..);
    assert_eq!(frame::decode_request(body).unwrap(), Incoming::Request(header.clone(), request));
}

#[track_caller]
fn check_response(version: i16, response: impl Into<Response>, expected: &str) {
    let response = response.into();
    let frame = frame::encode_response(9, version, &response).unwrap().concat();
    assert_eq!(frame, bytes_of(expected));
    let body = Bytes::from(frame).slice(frame::PREFIX_BYTES..);
    let (header, back) = frame::decode_response(response.api(), version, body).unwrap();
    assert_eq!((header.correlation_id, back), (9, response));
}

fn header(api: ApiKey, version: i16, client_id: Option<&str>) -> RequestHeader {
    RequestHeader {
        api_key: api.to_i16(),
        api_version: version,
        correlation_id: 1,
        client_id: client_id.map(Str::from),
    }
}

#[test]
fn api_versions_3_has_a_flexible_header_and_compact_strings() {
    check_request(
        &header(ApiKey::ApiVersions, 3, Some("me")),
        ApiVersionsRequest {
            client_software_name: "ab".into(),
            client_software_version: "1".into(),
            ..ApiVersionsRequest::default()
        },
        "00000013 0012 0003 00000001 0002 6d65 00 03 6162 02 31 00",
    );
}

#[test]
fn the_response_header_of_api_versions_never_has_tagged_fields() {
    let response = ApiVersionsResponse {
        api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 4 }],
        finalized_features_epoch: 5,
        ..ApiVersionsResponse::default()
    };
    check_response(
        4,
        response,
        "0000001d 00000009 0000 02 0012 0000 0004 00 00000000 01 01 08 0000000000000005",
    );
}

#[test]
fn metadata_1_tells_no_topics_from_all_topics() {
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    check_request(
        &header(ApiKey::Metadata, 1, None),
        all,
        "0000000e 0003 0001 00000001 ffff ffffffff",
    );
    let none = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    check_request(
        &header(ApiKey::Metadata, 1, None),
        none,
        "0000000e 0003 0001 00000001 ffff 00000000",
    );
}

#[test]
fn metadata_9_writes_counts_one_higher() {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    check_request(
        &header(ApiKey::Metadata, 9, None),
        request,
        "00000013 0003 0009 00000001 ffff 00 02 02 74 00 01 00 00 00",
    );
}

#[test]
fn produce_3_carries_records_as_they_are() {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData {
            name: "t".into(),
            partition_data: vec![PartitionProduceData {
                index: 2,
                records: Some(Records::from(vec![0xaa, 0xbb])),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    check_request(
        &header(ApiKey::Produce, 3, None),
        request,
        "00000027 0000 0003 00000001 ffff ffff ffff 000003e8 00000001 0001 74 00000001 00000002
         00000002 aabb",
    );
}

#[test]
fn fetch_splices_record_sets_without_a_copy() {
    let first = Bytes::from(vec![1_u8; 5000]);
    let second = Bytes::from(vec![2_u8; 3000]);
    let records = Records::from(vec![first.clone(), second.clone()]);
    let response = Response::Fetch(FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "t".into(),
            partitions: vec![PartitionData { records: Some(records), ..PartitionData::default() }],
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    });
    let pieces = frame::encode_response(1, 12, &response).unwrap();
    assert_eq!(pieces.len(), 4);
    assert_eq!(pieces[1].as_ptr(), first.as_ptr());
    assert_eq!(pieces[2].as_ptr(), second.as_ptr());
    let frame = Bytes::from(pieces.concat());
    let announced = frame::length(*frame.first_chunk().unwrap(), usize::MAX).unwrap();
    assert_eq!(announced, frame.len() - frame::PREFIX_BYTES);
    let body = frame.slice(frame::PREFIX_BYTES..);
    let (_, back) = frame::decode_response(ApiKey::Fetch, 12, body.clone()).unwrap();
    assert_eq!(back, response);
    let Response::Fetch(fetched) = back else { panic!("{back:?}") };
    let records = fetched.responses[0].partitions[0].records.clone().unwrap().into_bytes();
    assert!(body.as_ptr_range().contains(&records.as_ptr()), "decoded records are a slice");
}

#[test]
fn api_versions_of_an_unknown_version_is_answered_at_version_0() {
    let bytes = bytes_of("0012 0063 00000007 0002 6d65 00 03 6162 02 31 00");
    let Incoming::UnknownApiVersions(header) = frame::decode_request(bytes.into()).unwrap() else {
        panic!("it is not to be read")
    };
    assert_eq!((header.correlation_id, header.api_version), (7, 99));
    let fallback = Response::from(api::api_versions_fallback());
    let frame = frame::encode_response(7, 0, &fallback).unwrap().concat();
    assert_eq!(frame[4..10], bytes_of("00000007 0023"));
    assert_eq!(frame[10..], bytes_of("00000001 0012 0000 0005"));
}
