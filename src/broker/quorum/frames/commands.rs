//! Commands to the controller that Kafka has a request for: what brokers say of themselves and of what they lead.
//!
//! BrokerRegistration, BrokerHeartbeat, AlterPartition and AllocateProducerIds are Kafka's frames. What these have no place
//! for is in tagged fields of ottla's own, which Apache Kafka's nodes pass over: what is known of the predecessor of a
//! broker, where its leaderships were handed over, at which offset the answer holds, and why something was refused.
//!
//! All other commands, and these with a node of a release that does not know the frames, travel in an Envelope
//! (`machine/controller/wire.rs`).

use std::collections::BTreeMap;

use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{
    AllocateProducerIds, AlterPartition, AnyCommand, AnyReply, BrokerHeartbeat, BrokerRegistration,
    COMMAND_VERSION, CommandAnswer, HeartbeatState, IsrChange, IsrState, Predecessor,
    ProducerIdBlock, Refusal,
};
use crate::machine::metadata::Endpoint;
use crate::protocol::messages::own::Outcome;
use crate::protocol::messages::{
    allocate_producer_ids as ids, alter_partition as isr, broker_heartbeat as heartbeat,
    broker_registration as registration,
};
use crate::protocol::{Request, Response, Str};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
};

/// The frame of a command, at its highest version; none for a command that Kafka has no request for.
pub(in crate::broker) fn command_request(command: &AnyCommand) -> Option<Request> {
    Some(match command {
        AnyCommand::BrokerRegistration(asked) => registration_request(asked).into(),
        AnyCommand::BrokerHeartbeat(asked) => heartbeat_request(asked).into(),
        AnyCommand::AlterPartition(asked) => isr_request(asked).into(),
        AnyCommand::AllocateProducerIds(asked) => ids::AllocateProducerIdsRequest {
            broker_id: asked.broker.0,
            broker_epoch: asked.epoch.0,
        }
        .into(),
        _ => return None,
    })
}

fn registration_request(asked: &BrokerRegistration) -> registration::BrokerRegistrationRequest {
    let listener = |endpoint: &Endpoint| registration::Listener {
        name: Str::from(&*endpoint.listener),
        host: Str::from(&*endpoint.host),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol,
    };
    let predecessor = asked.predecessor.as_ref();
    registration::BrokerRegistrationRequest {
        broker_id: asked.id.0,
        cluster_id: asked.cluster_id.as_deref().map_or(Str::EMPTY, Str::from),
        incarnation_id: asked.incarnation,
        listeners: asked.endpoints.iter().map(listener).collect(),
        features: Vec::new(),
        rack: asked.rack.as_deref().map(Str::from),
        is_migrating_zk_broker: false,
        log_dirs: vec![asked.directory_id],
        previous_broker_epoch: predecessor.map_or(-1, |known| known.epoch.0),
        ottla: registration::OttlaRegistration {
            command_version: COMMAND_VERSION.cast_signed(),
            is_first: asked.is_first,
            is_ready: asked.ready,
            left_all: predecessor.is_some_and(|known| known.left_all),
            durability: predecessor.and_then(|known| known.durability.as_deref()).map(Str::from),
        },
    }
}

fn heartbeat_request(asked: &BrokerHeartbeat) -> heartbeat::BrokerHeartbeatRequest {
    heartbeat::BrokerHeartbeatRequest {
        broker_id: asked.id.0,
        broker_epoch: asked.epoch.0,
        current_metadata_offset: asked.metadata_offset.0,
        want_fence: asked.want_fence,
        want_shut_down: asked.want_shutdown,
        ottla: heartbeat::OttlaHeartbeat { handed_over: asked.handed_over.map_or(-1, |at| at.0) },
        ..heartbeat::BrokerHeartbeatRequest::default()
    }
}

fn isr_request(asked: &AlterPartition) -> isr::AlterPartitionRequest {
    let mut topics: Vec<isr::TopicData> = Vec::new();
    for change in &asked.changes {
        let member = |(node, epoch): &(NodeId, BrokerEpoch)| isr::BrokerState {
            broker_id: node.0,
            broker_epoch: epoch.0,
        };
        let partition = isr::PartitionData {
            partition_index: change.partition.0,
            leader_epoch: change.leader_epoch.0,
            new_isr_with_epochs: change.isr.iter().map(member).collect(),
            partition_epoch: change.partition_epoch.0,
            ..isr::PartitionData::default()
        };
        match topics.last_mut() {
            Some(topic) if topic.topic_id == change.topic_id => topic.partitions.push(partition),
            _ => topics
                .push(isr::TopicData { topic_id: change.topic_id, partitions: vec![partition] }),
        }
    }
    isr::AlterPartitionRequest { broker_id: asked.broker.0, broker_epoch: asked.epoch.0, topics }
}

/// The command that is in a frame.
///
/// # Errors
///
/// UNSUPPORTED_VERSION for a broker that is no node of ottla, or one of a newer release.
pub(in crate::broker) fn read_command(request: &Request) -> Result<AnyCommand> {
    Ok(match request {
        Request::BrokerRegistration(body) => {
            AnyCommand::BrokerRegistration(read_registration(body)?)
        }
        Request::BrokerHeartbeat(body) => AnyCommand::BrokerHeartbeat(BrokerHeartbeat {
            id: NodeId(body.broker_id),
            epoch: BrokerEpoch(body.broker_epoch),
            metadata_offset: Offset(body.current_metadata_offset),
            want_fence: body.want_fence,
            want_shutdown: body.want_shut_down,
            handed_over: Some(Offset(body.ottla.handed_over)).filter(|at| at.0 >= 0),
        }),
        Request::AlterPartition(body) => AnyCommand::AlterPartition(read_isr(body)),
        Request::AllocateProducerIds(body) => {
            AnyCommand::AllocateProducerIds(AllocateProducerIds {
                broker: NodeId(body.broker_id),
                epoch: BrokerEpoch(body.broker_epoch),
            })
        }
        other => return Err(Error::malformed("command", format!("it is in {}", other.api()))),
    })
}

fn read_registration(body: &registration::BrokerRegistrationRequest) -> Result<BrokerRegistration> {
    let own = &body.ottla;
    let known = COMMAND_VERSION.cast_signed();
    let refused = |text: String| Err(Error::told(ErrorCode::UnsupportedVersion, text));
    if own.command_version <= 0 {
        let id = body.broker_id;
        return refused(format!(
            "broker {id} is no node of ottla: it could not read the metadata of this cluster"
        ));
    }
    if own.command_version > known {
        return refused(format!(
            "a registration of version {} came from a newer node; this one knows version {known}",
            own.command_version
        ));
    }
    let [directory_id] = *body.log_dirs else {
        return Err(Error::told(ErrorCode::InvalidRequest, "a broker has one log directory here"));
    };
    let endpoint = |listener: &registration::Listener| Endpoint {
        listener: (&*listener.name).into(),
        host: (&*listener.host).into(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    };
    let predecessor = (body.previous_broker_epoch >= 0).then(|| Predecessor {
        epoch: BrokerEpoch(body.previous_broker_epoch),
        left_all: own.left_all,
        durability: own.durability.as_deref().map(str::to_owned),
    });
    Ok(BrokerRegistration {
        id: NodeId(body.broker_id),
        incarnation: body.incarnation_id,
        directory_id,
        is_first: own.is_first,
        predecessor,
        cluster_id: Some(&*body.cluster_id).filter(|id| !id.is_empty()).map(Into::into),
        endpoints: body.listeners.iter().map(endpoint).collect(),
        rack: body.rack.as_deref().map(Into::into),
        ready: own.is_ready,
    })
}

fn read_isr(body: &isr::AlterPartitionRequest) -> AlterPartition {
    let change = |topic_id: TopicId, data: &isr::PartitionData| {
        // Version 2 does not name registrations.
        let older = data.new_isr.iter().map(|id| (NodeId(*id), BrokerEpoch::UNKNOWN));
        let members = data.new_isr_with_epochs.iter();
        let members = members.map(|one| (NodeId(one.broker_id), BrokerEpoch(one.broker_epoch)));
        IsrChange {
            topic_id,
            partition: PartitionIndex(data.partition_index),
            leader_epoch: LeaderEpoch(data.leader_epoch),
            partition_epoch: PartitionEpoch(data.partition_epoch),
            isr: older.chain(members).collect(),
        }
    };
    let of_topic = |topic: &isr::TopicData| {
        let changes = topic.partitions.iter().map(|data| change(topic.topic_id, data));
        changes.collect::<Vec<_>>()
    };
    AlterPartition {
        broker: NodeId(body.broker_id),
        epoch: BrokerEpoch(body.broker_epoch),
        changes: body.topics.iter().flat_map(of_topic).collect(),
    }
}

/// What is said of a whole command: the code, and the part of ottla's own.
fn outcome(answer: &CommandAnswer, refusal: Option<&Refusal>) -> (i16, Outcome) {
    let offset = match answer {
        CommandAnswer::Committed { offset, .. } => offset.0,
        CommandAnswer::Failed(_) => -1,
    };
    let code = refusal.map_or(ErrorCode::None, |refusal| refusal.code);
    let message = refusal.map(|refusal| Str::from(refusal.message.as_str()));
    (code.to_i16(), Outcome { offset, message })
}

/// The reply to a command of one kind, or why there is none.
macro_rules! reply {
    ($answer:expr, $kind:ident) => {
        match $answer {
            CommandAnswer::Committed { reply: AnyReply::$kind(reply), .. } => reply.as_ref(),
            CommandAnswer::Committed { .. } => return Err(other_command()),
            CommandAnswer::Failed(refusal) => Err(refusal),
        }
    };
}

/// The answer to a frame.
///
/// # Errors
///
/// It is the answer to another command.
pub(in crate::broker) fn command_answer(
    request: &Request,
    answer: &CommandAnswer,
) -> Result<Response> {
    let throttle_time_ms = 0;
    Ok(match request {
        Request::BrokerRegistration(_) => {
            let reply = reply!(answer, BrokerRegistration);
            let (error_code, ottla) = outcome(answer, reply.err());
            let broker_epoch = reply.map_or(-1, |epoch| epoch.0);
            registration::BrokerRegistrationResponse {
                throttle_time_ms,
                error_code,
                broker_epoch,
                ottla,
            }
            .into()
        }
        Request::BrokerHeartbeat(body) => {
            let reply = reply!(answer, BrokerHeartbeat);
            let (error_code, ottla) = outcome(answer, reply.err());
            heartbeat::BrokerHeartbeatResponse {
                throttle_time_ms,
                error_code,
                is_caught_up: body.current_metadata_offset >= ottla.offset,
                is_fenced: reply.map_or(true, |state| state.fenced),
                should_shut_down: reply.is_ok_and(|state| state.may_stop),
                ottla,
            }
            .into()
        }
        Request::AlterPartition(body) => {
            let reply = reply!(answer, AlterPartition);
            let (error_code, ottla) = outcome(answer, reply.err());
            let topics = reply.map_or_else(|_| Vec::new(), |states| isr_states(body, states));
            isr::AlterPartitionResponse { throttle_time_ms, error_code, topics, ottla }.into()
        }
        Request::AllocateProducerIds(_) => {
            let reply = reply!(answer, AllocateProducerIds);
            let (error_code, ottla) = outcome(answer, reply.err());
            ids::AllocateProducerIdsResponse {
                throttle_time_ms,
                error_code,
                producer_id_start: reply.map_or(-1, |block| block.first.0),
                producer_id_len: reply.map_or(0, |block| block.count),
                ottla,
            }
            .into()
        }
        _ => return Err(other_command()),
    })
}

fn isr_states(
    asked: &isr::AlterPartitionRequest,
    states: &[Result<IsrState, Refusal>],
) -> Vec<isr::TopicState> {
    let mut states = states.iter();
    let mut one = |data: &isr::PartitionData| {
        let partition_index = data.partition_index;
        match states.next() {
            Some(Ok(state)) => isr::PartitionState {
                partition_index,
                error_code: 0,
                leader_id: state.leader.0,
                leader_epoch: state.leader_epoch.0,
                isr: state.isr.iter().map(|id| id.0).collect(),
                leader_recovery_state: 0,
                partition_epoch: state.partition_epoch.0,
            },
            refused => {
                let code = match refused {
                    Some(Err(refusal)) => refusal.code,
                    _ => ErrorCode::UnknownServerError,
                };
                let error_code = code.to_i16();
                isr::PartitionState { partition_index, error_code, ..Default::default() }
            }
        }
    };
    let topic = |topic: &isr::TopicData| isr::TopicState {
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(&mut one).collect(),
    };
    asked.topics.iter().map(topic).collect()
}

fn other_command() -> Error {
    Error::malformed("answer to a command", "it is the answer to another command")
}

/// What a response says, of the command that was asked.
///
/// # Errors
///
/// It is the response to another command.
pub(in crate::broker) fn read_command_answer(
    command: &AnyCommand,
    response: Response,
) -> Result<CommandAnswer> {
    Ok(match (command, response) {
        (AnyCommand::BrokerRegistration(_), Response::BrokerRegistration(body)) => {
            let epoch = BrokerEpoch(body.broker_epoch);
            told(body.error_code, body.ottla, epoch, AnyReply::BrokerRegistration)
        }
        (AnyCommand::BrokerHeartbeat(_), Response::BrokerHeartbeat(body)) => {
            let state = HeartbeatState { fenced: body.is_fenced, may_stop: body.should_shut_down };
            told(body.error_code, body.ottla, state, AnyReply::BrokerHeartbeat)
        }
        (AnyCommand::AlterPartition(asked), Response::AlterPartition(body)) => {
            let states = read_isr_states(asked, &body.topics);
            told(body.error_code, body.ottla, states, AnyReply::AlterPartition)
        }
        (AnyCommand::AllocateProducerIds(_), Response::AllocateProducerIds(body)) => {
            let first = ProducerId(body.producer_id_start);
            let block = ProducerIdBlock { first, count: body.producer_id_len };
            told(body.error_code, body.ottla, block, AnyReply::AllocateProducerIds)
        }
        _ => return Err(other_command()),
    })
}

/// A command without an offset was not carried out, as far as is known.
fn told<T>(
    error_code: i16,
    own: Outcome,
    reply: T,
    wrap: impl FnOnce(Result<T, Refusal>) -> AnyReply,
) -> CommandAnswer {
    let code = ErrorCode::from_i16(error_code);
    let message = own.message.as_deref().unwrap_or_default();
    let refusal = Refusal::new(code, message);
    match (own.offset, code.is_ok()) {
        (..0, true) => {
            let text = "the controller does not say where its answer holds";
            CommandAnswer::Failed(Refusal::new(ErrorCode::UnknownServerError, text))
        }
        (..0, false) => CommandAnswer::Failed(refusal),
        (offset, is_ok) => {
            let reply = wrap(if is_ok { Ok(reply) } else { Err(refusal) });
            CommandAnswer::Committed { offset: Offset(offset), reply }
        }
    }
}

/// In the order of the changes that were asked for.
fn read_isr_states(
    asked: &AlterPartition,
    topics: &[isr::TopicState],
) -> Vec<Result<IsrState, Refusal>> {
    let mut found = BTreeMap::new();
    for topic in topics {
        let of_topic = topic.partitions.iter();
        found.extend(
            of_topic.map(|state| ((topic.topic_id, PartitionIndex(state.partition_index)), state)),
        );
    }
    let state = |change: &IsrChange| match found.get(&(change.topic_id, change.partition)) {
        Some(state) if state.error_code == 0 => Ok(IsrState {
            leader: NodeId(state.leader_id),
            leader_epoch: LeaderEpoch(state.leader_epoch),
            isr: state.isr.iter().copied().map(NodeId).collect(),
            partition_epoch: PartitionEpoch(state.partition_epoch),
        }),
        Some(state) => Err(Refusal::new(ErrorCode::from_i16(state.error_code), "")),
        None => {
            let text = "the controller says nothing of the partition";
            Err(Refusal::new(ErrorCode::UnknownServerError, text))
        }
    };
    asked.changes.iter().map(state).collect()
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
