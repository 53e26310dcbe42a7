//! A client whose codec is not ours: the `kafka-protocol` crate.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::support::{TestBroker, batch, values};

fn call<Q: Encodable, R: Decodable>(
    stream: &mut TcpStream,
    api: ApiKey,
    version: i16,
    request: &Q,
) -> R {
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(StrBytes::from_static_str("other")));
    header.encode(&mut body, api.request_header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.put(body);
    stream.write_all(&frame).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    let mut answer = Bytes::from(answer);
    let header = ResponseHeader::decode(&mut answer, api.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, 5);
    let response = R::decode(&mut answer, version).unwrap();
    assert_eq!(answer.remaining(), 0, "{api:?} v{version} has bytes to spare");
    response
}

#[test]
fn another_codec_writes_and_reads() {
    let node = TestBroker::in_memory();
    node.client().create_topic("t", 1, &[]);
    let mut stream = node.socket();
    let name = || TopicName(StrBytes::from_static_str("t"));
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("other"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let response: ApiVersionsResponse =
            call(&mut stream, ApiKey::ApiVersions, version, &request);
        assert_eq!(response.error_code, 0);
    }
    for version in 1..=12 {
        let topic = MetadataRequestTopic::default().with_name(Some(name()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let response: MetadataResponse = call(&mut stream, ApiKey::Metadata, version, &request);
        assert_eq!(response.topics[0].partitions.len(), 1);
    }
    let mut count = 0;
    for version in 3..=12 {
        let data = PartitionProduceData::default().with_records(Some(batch(&[b"x", b"y"])));
        let topic = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(5000)
            .with_topic_data(vec![topic]);
        let response: ProduceResponse = call(&mut stream, ApiKey::Produce, version, &request);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, count), "v{version}");
        count += 2;
    }
    for version in 4..=12 {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]);
        let response: FetchResponse = call(&mut stream, ApiKey::Fetch, version, &request);
        let data = &response.responses[0].partitions[0];
        let found = values(data.records.clone().unwrap().into());
        assert_eq!((data.high_watermark, found.len() as i64), (count, count), "v{version}");
    }
}
