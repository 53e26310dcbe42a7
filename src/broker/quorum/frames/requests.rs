//! What a replica asks another.

use std::time::Duration;

use super::{
    FETCH_BYTES, METADATA_TOPIC_ID, TOPIC, check_index, endpoint, key, only, place, refused,
    snapshot_id,
};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::Endpoint;
use crate::machine::quorum::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchRequest, FetchSnapshotRequest, Leader,
    ReplicaKey, Request, UpdateVoterRequest, VoteRequest, Voter,
};
use crate::protocol::messages::{
    begin_quorum_epoch as begin, end_quorum_epoch as end, fetch, fetch_snapshot as snapshot,
    update_raft_voter as update, vote,
};
use crate::protocol::{self, Str};
use crate::types::{LeaderEpoch, NodeId, Offset, Uuid};

/// The frame of a request, at its highest version. `cluster_id` is left out as long as it is not known.
pub(in crate::broker) fn request(cluster_id: Option<&str>, request: &Request) -> protocol::Request {
    let cluster_id = cluster_id.map(Str::from);
    match request {
        Request::Vote(asked) => vote_request(cluster_id, asked).into(),
        Request::BeginQuorumEpoch(asked) => begin_request(cluster_id, asked).into(),
        Request::EndQuorumEpoch(asked) => end_request(cluster_id, asked).into(),
        Request::Fetch(asked) => fetch_request(cluster_id, asked).into(),
        Request::FetchSnapshot(asked) => snapshot_request(cluster_id, asked).into(),
        Request::UpdateVoter(asked) => update_request(cluster_id, asked).into(),
    }
}

fn vote_request(cluster_id: Option<Str>, asked: &VoteRequest) -> vote::VoteRequest {
    let partition = vote::PartitionData {
        partition_index: 0,
        replica_epoch: asked.epoch.0,
        replica_id: asked.candidate.id.0,
        replica_directory_id: asked.candidate.directory_id,
        voter_directory_id: asked.voter.directory_id,
        last_offset_epoch: asked.last.epoch.0,
        last_offset: asked.last.offset.0,
        pre_vote: asked.pre_vote,
    };
    let topic = vote::TopicData { topic_name: TOPIC.clone(), partitions: vec![partition] };
    vote::VoteRequest { cluster_id, voter_id: asked.voter.id.0, topics: vec![topic] }
}

fn begin_request(
    cluster_id: Option<Str>,
    asked: &BeginQuorumEpochRequest,
) -> begin::BeginQuorumEpochRequest {
    let partition = begin::PartitionData {
        partition_index: 0,
        voter_directory_id: asked.voter.directory_id,
        leader_id: asked.leader.id.0,
        leader_epoch: asked.epoch.0,
    };
    let listener = |endpoint: &Endpoint| begin::LeaderEndpoint {
        name: Str::from(&*endpoint.listener),
        host: Str::from(&*endpoint.host),
        port: endpoint.port,
    };
    begin::BeginQuorumEpochRequest {
        cluster_id,
        voter_id: asked.voter.id.0,
        topics: vec![begin::TopicData { topic_name: TOPIC.clone(), partitions: vec![partition] }],
        leader_endpoints: asked.leader.endpoints.iter().map(listener).collect(),
    }
}

fn end_request(
    cluster_id: Option<Str>,
    asked: &EndQuorumEpochRequest,
) -> end::EndQuorumEpochRequest {
    let candidate = |key: &ReplicaKey| end::ReplicaInfo {
        candidate_id: key.id.0,
        candidate_directory_id: key.directory_id,
    };
    let partition = end::PartitionData {
        partition_index: 0,
        leader_id: asked.leader.id.0,
        leader_epoch: asked.epoch.0,
        preferred_successors: Vec::new(),
        preferred_candidates: asked.successors.iter().map(candidate).collect(),
    };
    let listener = |endpoint: &Endpoint| end::LeaderEndpoint {
        name: Str::from(&*endpoint.listener),
        host: Str::from(&*endpoint.host),
        port: endpoint.port,
    };
    end::EndQuorumEpochRequest {
        cluster_id,
        topics: vec![end::TopicData { topic_name: TOPIC.clone(), partitions: vec![partition] }],
        leader_endpoints: asked.leader.endpoints.iter().map(listener).collect(),
    }
}

fn fetch_request(cluster_id: Option<Str>, asked: &FetchRequest) -> fetch::FetchRequest {
    let bytes = if asked.wants_records { FETCH_BYTES } else { 0 };
    let partition = fetch::FetchPartition {
        partition: 0,
        current_leader_epoch: asked.epoch.0,
        fetch_offset: asked.last.offset.0,
        last_fetched_epoch: asked.last.epoch.0,
        partition_max_bytes: bytes,
        replica_directory_id: asked.replica.directory_id,
        high_watermark: asked.high_watermark.0,
        ..fetch::FetchPartition::default()
    };
    let topic = fetch::FetchTopic {
        topic_id: METADATA_TOPIC_ID,
        partitions: vec![partition],
        ..fetch::FetchTopic::default()
    };
    fetch::FetchRequest {
        cluster_id,
        replica_state: fetch::ReplicaState { replica_id: asked.replica.id.0, replica_epoch: -1 },
        max_wait_ms: i32::try_from(asked.max_wait.as_millis()).unwrap_or(i32::MAX),
        max_bytes: bytes,
        topics: vec![topic],
        ..fetch::FetchRequest::default()
    }
}

fn snapshot_request(
    cluster_id: Option<Str>,
    asked: &FetchSnapshotRequest,
) -> snapshot::FetchSnapshotRequest {
    let partition = snapshot::PartitionSnapshot {
        partition: 0,
        current_leader_epoch: asked.epoch.0,
        snapshot_id: snapshot_id(asked.snapshot),
        position: i64::try_from(asked.position).unwrap_or(i64::MAX),
        replica_directory_id: asked.replica.directory_id,
    };
    snapshot::FetchSnapshotRequest {
        cluster_id,
        replica_id: asked.replica.id.0,
        max_bytes: FETCH_BYTES,
        topics: vec![snapshot::TopicSnapshot { name: TOPIC.clone(), partitions: vec![partition] }],
    }
}

fn update_request(
    cluster_id: Option<Str>,
    asked: &UpdateVoterRequest,
) -> update::UpdateRaftVoterRequest {
    let listener = |endpoint: &Endpoint| update::Listener {
        name: Str::from(&*endpoint.listener),
        host: Str::from(&*endpoint.host),
        port: endpoint.port,
    };
    update::UpdateRaftVoterRequest {
        cluster_id,
        current_leader_epoch: asked.epoch.0,
        voter_id: asked.voter.key.id.0,
        voter_directory_id: asked.voter.key.directory_id,
        listeners: asked.voter.endpoints.iter().map(listener).collect(),
        kraft_version_feature: update::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
        },
    }
}

/// What a frame asks.
///
/// # Errors
///
/// The frame is for another cluster, for another partition, or for no quorum.
pub(in crate::broker) fn read_request(
    cluster_id: Option<&str>,
    request: &protocol::Request,
) -> Result<Request> {
    check_cluster(cluster_id, cluster_of(request))?;
    match request {
        protocol::Request::Vote(body) => read_vote(body).map(Request::Vote),
        protocol::Request::BeginQuorumEpoch(body) => {
            read_begin(body).map(Request::BeginQuorumEpoch)
        }
        protocol::Request::EndQuorumEpoch(body) => read_end(body).map(Request::EndQuorumEpoch),
        protocol::Request::Fetch(body) => read_fetch(body).map(Request::Fetch),
        protocol::Request::FetchSnapshot(body) => read_snapshot(body).map(Request::FetchSnapshot),
        protocol::Request::UpdateRaftVoter(body) => Ok(Request::UpdateVoter(read_update(body))),
        _ => Err(refused(ErrorCode::InvalidRequest)),
    }
}

fn read_vote(body: &vote::VoteRequest) -> Result<VoteRequest> {
    let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
    check_index(partition.partition_index)?;
    Ok(VoteRequest {
        epoch: LeaderEpoch(partition.replica_epoch),
        candidate: key(partition.replica_id, partition.replica_directory_id),
        voter: key(body.voter_id, partition.voter_directory_id),
        last: place(partition.last_offset, partition.last_offset_epoch),
        pre_vote: partition.pre_vote,
    })
}

fn read_begin(body: &begin::BeginQuorumEpochRequest) -> Result<BeginQuorumEpochRequest> {
    let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
    check_index(partition.partition_index)?;
    let endpoints = body.leader_endpoints.iter();
    let endpoints = endpoints.map(|one| endpoint(&one.name, &one.host, one.port));
    Ok(BeginQuorumEpochRequest {
        epoch: LeaderEpoch(partition.leader_epoch),
        leader: Leader { id: NodeId(partition.leader_id), endpoints: endpoints.collect() },
        voter: key(body.voter_id, partition.voter_directory_id),
    })
}

fn read_end(body: &end::EndQuorumEpochRequest) -> Result<EndQuorumEpochRequest> {
    let partition = only(&body.topics, |topic| (&topic.topic_name, &topic.partitions))?;
    check_index(partition.partition_index)?;
    let endpoints = body.leader_endpoints.iter();
    let endpoints = endpoints.map(|one| endpoint(&one.name, &one.host, one.port));
    // Version 0 names nodes, later ones replicas.
    let named = partition.preferred_successors.iter().map(|&id| key(id, Uuid::ZERO));
    let candidates = partition.preferred_candidates.iter();
    let candidates = candidates.map(|one| key(one.candidate_id, one.candidate_directory_id));
    Ok(EndQuorumEpochRequest {
        epoch: LeaderEpoch(partition.leader_epoch),
        leader: Leader { id: NodeId(partition.leader_id), endpoints: endpoints.collect() },
        successors: named.chain(candidates).collect(),
    })
}

fn read_fetch(body: &fetch::FetchRequest) -> Result<FetchRequest> {
    let partition = only(&body.topics, |topic| (&TOPIC, &topic.partitions))?;
    check_index(partition.partition)?;
    let replica = body.replica_state.replica_id.max(body.replica_id);
    Ok(FetchRequest {
        epoch: LeaderEpoch(partition.current_leader_epoch),
        replica: key(replica, partition.replica_directory_id),
        last: place(partition.fetch_offset, partition.last_fetched_epoch),
        sent: Duration::ZERO,
        high_watermark: Offset(partition.high_watermark),
        max_wait: Duration::from_millis(body.max_wait_ms.max(0).unsigned_abs().into()),
        wants_records: body.max_bytes > 0 && partition.partition_max_bytes > 0,
    })
}

fn read_snapshot(body: &snapshot::FetchSnapshotRequest) -> Result<FetchSnapshotRequest> {
    let partition = only(&body.topics, |topic| (&topic.name, &topic.partitions))?;
    check_index(partition.partition)?;
    let id = &partition.snapshot_id;
    Ok(FetchSnapshotRequest {
        epoch: LeaderEpoch(partition.current_leader_epoch),
        replica: key(body.replica_id, partition.replica_directory_id),
        snapshot: place(id.end_offset, id.epoch),
        position: u64::try_from(partition.position)
            .map_err(|_negative| refused(ErrorCode::PositionOutOfRange))?,
    })
}

fn read_update(body: &update::UpdateRaftVoterRequest) -> UpdateVoterRequest {
    let endpoints = body.listeners.iter();
    let endpoints = endpoints.map(|one| endpoint(&one.name, &one.host, one.port));
    let voter =
        Voter { key: key(body.voter_id, body.voter_directory_id), endpoints: endpoints.collect() };
    let epoch = LeaderEpoch(body.current_leader_epoch);
    UpdateVoterRequest { epoch, voter }
}

/// The cluster that a frame names.
pub(in crate::broker) fn cluster_of(request: &protocol::Request) -> Option<&str> {
    match request {
        protocol::Request::Vote(body) => body.cluster_id.as_deref(),
        protocol::Request::BeginQuorumEpoch(body) => body.cluster_id.as_deref(),
        protocol::Request::EndQuorumEpoch(body) => body.cluster_id.as_deref(),
        protocol::Request::Fetch(body) => body.cluster_id.as_deref(),
        protocol::Request::FetchSnapshot(body) => body.cluster_id.as_deref(),
        protocol::Request::UpdateRaftVoter(body) => body.cluster_id.as_deref(),
        _ => None,
    }
}

/// Refuses what is meant for another cluster. Who does not know its cluster yet is let through.
///
/// # Errors
///
/// INCONSISTENT_CLUSTER_ID, with both ids.
pub(in crate::broker) fn check_cluster(ours: Option<&str>, theirs: Option<&str>) -> Result<()> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs != ours => {
            let text = format!("the request is for cluster {theirs}; this is cluster {ours}");
            Err(Error::kafka(ErrorCode::InconsistentClusterId, text))
        }
        _ => Ok(()),
    }
}
