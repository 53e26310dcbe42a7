use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::machine::quorum::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchRequest, FetchResponse,
    FetchSnapshotRequest, FetchSnapshotResponse, Found, Leader, LeaderAndEpoch, Payload, Request,
    Response, SnapshotPart, UpdateVoterRequest, VoteRequest, VoteResponse, Voter,
};
use crate::protocol;
use crate::protocol::messages::vote;
use crate::protocol::primitives::{Decoder, Encoder};

const CLUSTER: Option<&str> = Some("a-cluster");

fn epochs() -> impl Strategy<Value = LeaderEpoch> {
    (0..1000).prop_map(LeaderEpoch)
}

fn places() -> impl Strategy<Value = OffsetAndEpoch> {
    (0..1_000_000_i64, epochs())
        .prop_map(|(offset, epoch)| OffsetAndEpoch::new(Offset(offset), epoch))
}

fn keys() -> impl Strategy<Value = ReplicaKey> {
    (0..9, any::<[u8; 16]>())
        .prop_map(|(id, bytes)| ReplicaKey { id: NodeId(id), directory_id: Uuid(bytes) })
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = ("[A-Z]{1,5}", "[a-z.]{1,9}", any::<u16>());
    prop::collection::vec(one.prop_map(|(name, host, port)| endpoint(&name, &host, port)), 0..3)
}

fn leaders() -> impl Strategy<Value = Leader> {
    (0..9, endpoints()).prop_map(|(id, endpoints)| Leader { id: NodeId(id), endpoints })
}

fn requests() -> impl Strategy<Value = Request> {
    let votes = (epochs(), keys(), keys(), places(), any::<bool>()).prop_map(
        |(epoch, candidate, voter, last, pre_vote)| {
            Request::Vote(VoteRequest { epoch, candidate, voter, last, pre_vote })
        },
    );
    let begins = (epochs(), leaders(), keys()).prop_map(|(epoch, leader, voter)| {
        Request::BeginQuorumEpoch(BeginQuorumEpochRequest { epoch, leader, voter })
    });
    let ends = (epochs(), leaders(), prop::collection::vec(keys(), 0..4)).prop_map(
        |(epoch, leader, successors)| {
            Request::EndQuorumEpoch(EndQuorumEpochRequest { epoch, leader, successors })
        },
    );
    let fetches = (epochs(), keys(), places(), places(), 0..9000_u64, any::<bool>()).prop_map(
        |(epoch, replica, last, committed, max_wait, wants_records)| {
            Request::Fetch(FetchRequest {
                epoch,
                replica,
                last,
                sent: Duration::ZERO,
                high_watermark: committed.offset,
                max_wait: Duration::from_millis(max_wait),
                wants_records,
            })
        },
    );
    let snapshots = (epochs(), keys(), places(), 0..1_u64 << 40).prop_map(
        |(epoch, replica, snapshot, position)| {
            Request::FetchSnapshot(FetchSnapshotRequest { epoch, replica, snapshot, position })
        },
    );
    let updates = (epochs(), keys(), endpoints()).prop_map(|(epoch, key, endpoints)| {
        Request::UpdateVoter(UpdateVoterRequest { epoch, voter: Voter { key, endpoints } })
    });
    prop_oneof![votes, begins, ends, fetches, snapshots, updates]
}

/// What a replica knows of its leader, as far as a frame has room for it: one address without a name.
fn knowledge() -> impl Strategy<Value = LeaderAndEpoch> {
    let address = ("[a-z.]{1,9}", any::<u16>());
    let leader = (0..9, prop::option::of(address)).prop_map(|(id, address)| {
        let endpoints = address.iter().map(|(host, port)| endpoint("", host, *port)).collect();
        Leader { id: NodeId(id), endpoints }
    });
    (epochs(), prop::option::of(leader))
        .prop_map(|(epoch, leader)| LeaderAndEpoch { epoch, leader })
}

fn found() -> impl Strategy<Value = Found<Bytes>> {
    let entry = (0..3, "[a-z]{0,20}", 0..9);
    let records = (0..1000_i64, prop::collection::vec(entry, 0..20)).prop_map(|(first, list)| {
        let mut epoch = 0;
        let mut records = Vec::new();
        for (offset, (later, text, leader)) in (first..).zip(list) {
            epoch += later;
            let payload = if later > 0 {
                Payload::LeaderChange { leader: NodeId(leader) }
            } else {
                let head = br#"{"version":1,"leader":1,"kind":"records"}"#;
                Payload::Records([&head[..], b"\n", text.as_bytes()].concat().into())
            };
            records.push(Entry { offset: Offset(offset), epoch: LeaderEpoch(epoch), payload });
        }
        Found::Records(records)
    });
    prop_oneof![
        records,
        places().prop_map(Found::Diverging),
        places().prop_map(Found::Snapshot),
        Just(Found::NotLeader)
    ]
}

/// A request with an answer that it may get.
fn exchanges() -> impl Strategy<Value = (Request, Response<Bytes>)> {
    (requests(), knowledge(), any::<bool>(), found(), prop::option::of("[a-z]{0,30}")).prop_map(
        |(request, current, granted, found, part)| {
            let response = match &request {
                Request::Vote(asked) => Response::Vote(VoteResponse {
                    epoch: asked.epoch,
                    voter: asked.voter,
                    pre_vote: asked.pre_vote,
                    granted,
                    current,
                }),
                Request::Fetch(asked) => Response::Fetch(FetchResponse {
                    last: asked.last,
                    sent: asked.sent,
                    current,
                    high_watermark: Offset(77),
                    found,
                }),
                Request::FetchSnapshot(asked) => Response::FetchSnapshot(FetchSnapshotResponse {
                    snapshot: asked.snapshot,
                    position: asked.position,
                    current,
                    part: part.map(|text| SnapshotPart { size: 99, bytes: text.into() }),
                }),
                _ => Response::Current(current),
            };
            (request, response)
        },
    )
}

/// A frame as it comes out at the other end of a connection.
fn sent(request: &protocol::Request) -> protocol::Request {
    let version = request.api().versions().max;
    let mut encoder = Encoder::new();
    request.encode(version, &mut encoder).unwrap();
    let mut decoder = Decoder::new(encoder.finish_joined());
    protocol::Request::decode(request.api(), version, &mut decoder).unwrap()
}

fn sent_back(response: &protocol::Response) -> protocol::Response {
    let version = response.api().versions().max;
    let mut encoder = Encoder::new();
    response.encode(version, &mut encoder).unwrap();
    let mut decoder = Decoder::new(encoder.finish_joined());
    protocol::Response::decode(response.api(), version, &mut decoder).unwrap()
}

proptest! {
    #[test]
    fn requests_arrive_as_they_were_made(asked in requests()) {
        let frame = sent(&request(CLUSTER, &asked));
        prop_assert_eq!(read_request(CLUSTER, &frame).unwrap(), asked);
    }

    #[test]
    fn answers_arrive_as_they_were_made((asked, told) in exchanges()) {
        let frame = sent_back(&answer(&asked, told.clone()).unwrap());
        prop_assert_eq!(read_answer(&asked, frame).unwrap(), told);
    }

    #[test]
    fn nothing_is_heard_of_another_cluster(asked in requests()) {
        let error = read_request(Some("another"), &request(CLUSTER, &asked)).unwrap_err();
        prop_assert_eq!(error.code(), ErrorCode::InconsistentClusterId);
        // Who does not know its cluster yet may be told.
        prop_assert!(read_request(None, &request(CLUSTER, &asked)).is_ok());
        prop_assert!(read_request(CLUSTER, &request(None, &asked)).is_ok());
    }
}

#[test]
fn other_partitions_have_no_quorum() {
    let mut body = vote::VoteRequest::default();
    let code =
        |body: &vote::VoteRequest| read_request(CLUSTER, &body.clone().into()).unwrap_err().code();
    assert_eq!(code(&body), ErrorCode::InvalidRequest);
    let partition = vote::PartitionData::default();
    let topic =
        vote::TopicData { topic_name: "orders".into(), partitions: vec![partition.clone()] };
    body.topics = vec![topic];
    assert_eq!(code(&body), ErrorCode::UnknownTopicOrPartition);
    body.topics[0].topic_name = METADATA_TOPIC.into();
    assert!(read_request(CLUSTER, &body.clone().into()).is_ok());
    body.topics[0].partitions[0].partition_index = 1;
    assert_eq!(code(&body), ErrorCode::UnknownTopicOrPartition);
    body.topics[0].partitions.push(partition);
    assert_eq!(code(&body), ErrorCode::InvalidRequest);
}

#[test]
fn damaged_records_are_refused() {
    let payload = Payload::LeaderChange { leader: NodeId(1) };
    let entry = Entry { offset: Offset(3), epoch: LeaderEpoch(1), payload };
    let good = records(&[entry]).unwrap().into_bytes();
    assert_eq!(entries(Some(&good.clone().into())).unwrap().len(), 1);
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        // The offset and the epoch are outside the checksum, as in Kafka.
        let read = entries(Some(&Bytes::from(bad).into()));
        assert!(read.is_err() || at < 17, "byte {at}");
    }
}
