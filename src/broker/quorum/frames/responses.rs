//! What a replica answers another.

use bytes::Bytes;

use super::{METADATA_TOPIC_ID, TOPIC, endpoint, entries, only, place, records, snapshot_id};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::quorum::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, Found, Leader,
    LeaderAndEpoch, Request, Response, SnapshotPart, VoteResponse,
};
use crate::protocol::messages::{
    begin_quorum_epoch as begin, end_quorum_epoch as end, fetch, fetch_snapshot as snapshot,
    update_raft_voter as update, vote,
};
use crate::protocol::{self, Records, Str};
use crate::types::{LeaderEpoch, NodeId, Offset};

/// The frame of an answer. `request` is what it answers.
///
/// # Errors
///
/// A record is too large for a batch.
pub(in crate::broker) fn answer(
    request: &Request,
    response: Response<Bytes>,
) -> Result<protocol::Response> {
    let current = response.current();
    let code = if current.epoch > request.epoch() {
        ErrorCode::FencedLeaderEpoch
    } else {
        ErrorCode::None
    };
    Ok(match (request, response) {
        (Request::Vote(_), Response::Vote(response)) => vote_answer(&response, code).into(),
        (Request::BeginQuorumEpoch(_), Response::Current(current)) => {
            begin_answer(&current, code).into()
        }
        (Request::EndQuorumEpoch(_), Response::Current(current)) => {
            end_answer(&current, code).into()
        }
        (Request::UpdateVoter(_), Response::Current(current)) => {
            update_answer(&current, code).into()
        }
        (Request::Fetch(_), Response::Fetch(response)) => fetch_answer(response, code)?.into(),
        (Request::FetchSnapshot(_), Response::FetchSnapshot(response)) => {
            snapshot_answer(response, code).into()
        }
        _ => return Err(Error::malformed("answer of the quorum", "it is that of another request")),
    })
}

fn vote_answer(response: &VoteResponse, code: ErrorCode) -> vote::VoteResponse {
    let (leader_id, leader_epoch) = leader_fields(&response.current);
    let partition = vote::PartitionVote {
        partition_index: 0,
        error_code: code.to_i16(),
        leader_id,
        leader_epoch,
        vote_granted: response.granted,
    };
    let node = |node_id, host, port| vote::NodeEndpoint { node_id, host, port };
    vote::VoteResponse {
        error_code: 0,
        topics: vec![vote::TopicVotes { topic_name: TOPIC.clone(), partitions: vec![partition] }],
        node_endpoints: leader_endpoint(&response.current, node),
    }
}

fn begin_answer(current: &LeaderAndEpoch, code: ErrorCode) -> begin::BeginQuorumEpochResponse {
    let (leader_id, leader_epoch) = leader_fields(current);
    let error_code = code.to_i16();
    let partition =
        begin::PartitionEpoch { partition_index: 0, error_code, leader_id, leader_epoch };
    let node = |node_id, host, port| begin::NodeEndpoint { node_id, host, port };
    begin::BeginQuorumEpochResponse {
        error_code: 0,
        topics: vec![begin::TopicEpoch { topic_name: TOPIC.clone(), partitions: vec![partition] }],
        node_endpoints: leader_endpoint(current, node),
    }
}

fn end_answer(current: &LeaderAndEpoch, code: ErrorCode) -> end::EndQuorumEpochResponse {
    let (leader_id, leader_epoch) = leader_fields(current);
    let error_code = code.to_i16();
    let partition = end::PartitionEpoch { partition_index: 0, error_code, leader_id, leader_epoch };
    let node = |node_id, host, port| end::NodeEndpoint { node_id, host, port };
    end::EndQuorumEpochResponse {
        error_code: 0,
        topics: vec![end::TopicEpoch { topic_name: TOPIC.clone(), partitions: vec![partition] }],
        node_endpoints: leader_endpoint(current, node),
    }
}

fn update_answer(current: &LeaderAndEpoch, code: ErrorCode) -> update::UpdateRaftVoterResponse {
    let (leader_id, leader_epoch) = leader_fields(current);
    let mut leader = update::CurrentLeader { leader_id, leader_epoch, ..Default::default() };
    if let Some(known) = current.leader.iter().flat_map(|leader| &leader.endpoints).next() {
        leader.host = Str::from(&*known.host);
        leader.port = known.port.into();
    }
    update::UpdateRaftVoterResponse {
        error_code: code.to_i16(),
        current_leader: leader,
        ..Default::default()
    }
}

fn leader_fields(current: &LeaderAndEpoch) -> (i32, i32) {
    let id = current.leader.as_ref().map_or(NodeId::NONE, |leader| leader.id);
    (id.0, current.epoch.0)
}

fn leader_endpoint<N>(current: &LeaderAndEpoch, node: impl Fn(i32, Str, u16) -> N) -> Vec<N> {
    let Some(leader) = &current.leader else { return Vec::new() };
    let first = leader.endpoints.first();
    first.map(|one| node(leader.id.0, Str::from(&*one.host), one.port)).into_iter().collect()
}

fn fetch_answer(response: FetchResponse<Bytes>, code: ErrorCode) -> Result<fetch::FetchResponse> {
    let (leader_id, leader_epoch) = leader_fields(&response.current);
    let mut partition = fetch::PartitionData {
        partition_index: 0,
        high_watermark: response.high_watermark.0,
        current_leader: fetch::LeaderIdAndEpoch { leader_id, leader_epoch },
        aborted_transactions: None,
        records: Some(Records::new()),
        ..fetch::PartitionData::default()
    };
    match response.found {
        Found::Records(entries) => partition.records = Some(records(&entries)?),
        Found::Diverging(end) => {
            partition.diverging_epoch =
                fetch::EpochEndOffset { epoch: end.epoch.0, end_offset: end.offset.0 };
        }
        Found::Snapshot(id) => {
            partition.snapshot_id =
                fetch::SnapshotId { end_offset: id.offset.0, epoch: id.epoch.0 };
        }
        Found::NotLeader => {
            let code = if code.is_ok() { ErrorCode::NotLeaderOrFollower } else { code };
            partition.error_code = code.to_i16();
        }
    }
    let node = |node_id, host, port: u16| fetch::NodeEndpoint {
        node_id,
        host,
        port: port.into(),
        rack: None,
    };
    let topic = fetch::FetchableTopicResponse {
        topic_id: METADATA_TOPIC_ID,
        partitions: vec![partition],
        ..fetch::FetchableTopicResponse::default()
    };
    Ok(fetch::FetchResponse {
        responses: vec![topic],
        node_endpoints: leader_endpoint(&response.current, node),
        ..fetch::FetchResponse::default()
    })
}

fn snapshot_answer(
    response: FetchSnapshotResponse,
    code: ErrorCode,
) -> snapshot::FetchSnapshotResponse {
    let (leader_id, leader_epoch) = leader_fields(&response.current);
    let mut partition = snapshot::PartitionPart {
        index: 0,
        snapshot_id: snapshot_id(response.snapshot),
        current_leader: snapshot::LeaderIdAndEpoch { leader_id, leader_epoch },
        position: i64::try_from(response.position).unwrap_or(i64::MAX),
        ..snapshot::PartitionPart::default()
    };
    match response.part {
        Some(part) => {
            partition.size = i64::try_from(part.size).unwrap_or(i64::MAX);
            partition.unaligned_records.push(part.bytes);
        }
        None if code.is_ok() => partition.error_code = ErrorCode::SnapshotNotFound.to_i16(),
        None => partition.error_code = code.to_i16(),
    }
    let node = |node_id, host, port| snapshot::NodeEndpoint { node_id, host, port };
    snapshot::FetchSnapshotResponse {
        topics: vec![snapshot::TopicPart { name: TOPIC.clone(), partitions: vec![partition] }],
        node_endpoints: leader_endpoint(&response.current, node),
        ..snapshot::FetchSnapshotResponse::default()
    }
}

/// What an answer says. `request` is what was asked.
///
/// # Errors
///
/// The other side refused the request as a whole, or answered what was not asked.
pub(in crate::broker) fn read_answer(
    request: &Request,
    response: protocol::Response,
) -> Result<Response<Bytes>> {
    Ok(match (request, response) {
        (Request::Vote(asked), protocol::Response::Vote(body)) => {
            check_code(body.error_code)?;
            let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
            let nodes = body.node_endpoints.iter().map(|one| (one.node_id, &one.host, one.port));
            Response::Vote(VoteResponse {
                epoch: asked.epoch,
                voter: asked.voter,
                pre_vote: asked.pre_vote,
                granted: partition.vote_granted,
                current: current(partition.leader_id, partition.leader_epoch, nodes),
            })
        }
        (Request::BeginQuorumEpoch(_), protocol::Response::BeginQuorumEpoch(body)) => {
            check_code(body.error_code)?;
            let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
            let nodes = body.node_endpoints.iter().map(|one| (one.node_id, &one.host, one.port));
            Response::Current(current(partition.leader_id, partition.leader_epoch, nodes))
        }
        (Request::EndQuorumEpoch(_), protocol::Response::EndQuorumEpoch(body)) => {
            check_code(body.error_code)?;
            let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
            let nodes = body.node_endpoints.iter().map(|one| (one.node_id, &one.host, one.port));
            Response::Current(current(partition.leader_id, partition.leader_epoch, nodes))
        }
        (Request::UpdateVoter(_), protocol::Response::UpdateRaftVoter(body)) => {
            let leader = &body.current_leader;
            if leader.leader_epoch < 0 {
                check_code(body.error_code)?;
            }
            let port = u16::try_from(leader.port).unwrap_or(0);
            let nodes = [(leader.leader_id, &leader.host, port)].into_iter();
            let nodes = nodes.filter(|(_, host, _)| !host.is_empty());
            Response::Current(current(leader.leader_id, leader.leader_epoch, nodes))
        }
        (Request::Fetch(asked), protocol::Response::Fetch(body)) => {
            check_code(body.error_code)?;
            Response::Fetch(read_fetch(asked, &body)?)
        }
        (Request::FetchSnapshot(asked), protocol::Response::FetchSnapshot(body)) => {
            check_code(body.error_code)?;
            Response::FetchSnapshot(read_snapshot(asked, body)?)
        }
        _ => return Err(Error::malformed("answer of the quorum", "it is that of another request")),
    })
}

fn check_code(code: i16) -> Result<()> {
    match ErrorCode::from_i16(code) {
        code if code.is_ok() => Ok(()),
        code => Err(Error::kafka(code, "the other node of the metadata quorum refused")),
    }
}

fn current<'a>(
    id: i32,
    epoch: i32,
    mut nodes: impl Iterator<Item = (i32, &'a Str, u16)>,
) -> LeaderAndEpoch {
    let leader = (id >= 0).then(|| {
        let own = nodes.find(|(node, ..)| *node == id);
        let endpoints = own.map(|(_, host, port)| endpoint("", host, port));
        Leader { id: NodeId(id), endpoints: endpoints.into_iter().collect() }
    });
    LeaderAndEpoch { epoch: LeaderEpoch(epoch), leader }
}

fn read_fetch(asked: &FetchRequest, body: &fetch::FetchResponse) -> Result<FetchResponse<Bytes>> {
    let partition = only(&body.responses, |topic| (&TOPIC, &topic.partitions))?;
    let leader = &partition.current_leader;
    let nodes = body.node_endpoints.iter();
    let nodes = nodes.map(|one| (one.node_id, &one.host, u16::try_from(one.port).unwrap_or(0)));
    let (diverging, snapshot) = (&partition.diverging_epoch, &partition.snapshot_id);
    let found = if partition.error_code != 0 {
        if leader.leader_epoch < 0 {
            check_code(partition.error_code)?;
        }
        Found::NotLeader
    } else if snapshot.end_offset >= 0 {
        Found::Snapshot(place(snapshot.end_offset, snapshot.epoch))
    } else if diverging.end_offset >= 0 {
        Found::Diverging(place(diverging.end_offset, diverging.epoch))
    } else {
        Found::Records(entries(partition.records.as_ref())?)
    };
    Ok(FetchResponse {
        last: asked.last,
        sent: asked.sent,
        current: current(leader.leader_id, leader.leader_epoch, nodes),
        high_watermark: Offset(partition.high_watermark),
        found,
    })
}

fn read_snapshot(
    asked: &FetchSnapshotRequest,
    mut body: snapshot::FetchSnapshotResponse,
) -> Result<FetchSnapshotResponse> {
    let nodes = std::mem::take(&mut body.node_endpoints);
    let nodes = nodes.iter().map(|one| (one.node_id, &one.host, one.port));
    let partition = only(&body.topics, |topic| (&topic.name, &topic.partitions))?;
    let leader = &partition.current_leader;
    let part = (partition.error_code == 0).then(|| SnapshotPart {
        bytes: partition.unaligned_records.clone().into_bytes(),
        size: u64::try_from(partition.size).unwrap_or(0),
    });
    Ok(FetchSnapshotResponse {
        snapshot: asked.snapshot,
        position: asked.position,
        current: current(leader.leader_id, leader.leader_epoch, nodes),
        part,
    })
}
