//! Commands of brokers through frames and back, as bytes.

use super::*;
use crate::machine::controller::UnregisterBroker;
use crate::protocol::primitives::{Decoder, Encoder};
use crate::types::{PartitionIndex, Uuid};

fn through_bytes(request: &Request) -> Request {
    let version = request.api().versions().max;
    let mut encoder = Encoder::new();
    request.encode(version, &mut encoder).unwrap();
    let mut decoder = Decoder::new(encoder.finish_joined());
    Request::decode(request.api(), version, &mut decoder).unwrap()
}

fn back_through_bytes(response: &Response) -> Response {
    let version = response.api().versions().max;
    let mut encoder = Encoder::new();
    response.encode(version, &mut encoder).unwrap();
    let mut decoder = Decoder::new(encoder.finish_joined());
    Response::decode(response.api(), version, &mut decoder).unwrap()
}

fn registration(predecessor: Option<Predecessor>) -> BrokerRegistration {
    BrokerRegistration {
        id: NodeId(3),
        incarnation: Uuid([1; 16]),
        directory_id: Uuid([2; 16]),
        is_first: true,
        predecessor,
        cluster_id: Some("c".into()),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "h".into(),
            port: 65_535,
            security_protocol: 0,
        }],
        rack: Some("r".into()),
        ready: false,
    }
}

fn change(topic: u8, partition: i32) -> IsrChange {
    IsrChange {
        topic_id: Uuid([topic; 16]),
        partition: PartitionIndex(partition),
        leader_epoch: LeaderEpoch(4),
        partition_epoch: PartitionEpoch(9),
        isr: vec![(NodeId(1), BrokerEpoch(17)), (NodeId(2), BrokerEpoch::UNKNOWN)],
    }
}

fn commands() -> Vec<AnyCommand> {
    let left = |left_all, durability: Option<&str>| Predecessor {
        epoch: BrokerEpoch(5),
        left_all,
        durability: durability.map(str::to_owned),
    };
    let beat = |handed_over| {
        AnyCommand::BrokerHeartbeat(BrokerHeartbeat {
            id: NodeId(3),
            epoch: BrokerEpoch(7),
            metadata_offset: Offset(20),
            want_fence: true,
            want_shutdown: false,
            handed_over,
        })
    };
    vec![
        AnyCommand::BrokerRegistration(registration(None)),
        AnyCommand::BrokerRegistration(registration(Some(left(true, None)))),
        AnyCommand::BrokerRegistration(BrokerRegistration {
            cluster_id: None,
            rack: None,
            is_first: false,
            ready: true,
            ..registration(Some(left(false, Some("fsync"))))
        }),
        beat(None),
        beat(Some(Offset(0))),
        AnyCommand::AlterPartition(AlterPartition {
            broker: NodeId(1),
            epoch: BrokerEpoch(7),
            changes: vec![change(1, 0), change(1, 3), change(2, 1), change(1, 4)],
        }),
        AnyCommand::AllocateProducerIds(AllocateProducerIds {
            broker: NodeId(1),
            epoch: BrokerEpoch(7),
        }),
    ]
}

#[test]
fn commands_come_through_frames_unchanged() {
    for command in commands() {
        let request = through_bytes(&command_request(&command).unwrap());
        assert_eq!(read_command(&request).unwrap(), command);
    }
    let other = AnyCommand::UnregisterBroker(UnregisterBroker { id: NodeId(1) });
    assert!(command_request(&other).is_none());
}

#[test]
fn answers_come_back_unchanged() {
    let refusal = || Refusal::new(ErrorCode::StaleBrokerEpoch, "it is another process by now");
    let state = |partition_epoch| IsrState {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(4),
        isr: vec![NodeId(1), NodeId(2)],
        partition_epoch: PartitionEpoch(partition_epoch),
    };
    // What is refused of a single partition has a code, and no message.
    let single = Err(Refusal::new(ErrorCode::InvalidUpdateVersion, ""));
    let replies = |command: &AnyCommand| match command {
        AnyCommand::BrokerRegistration(_) => vec![
            AnyReply::BrokerRegistration(Ok(BrokerEpoch(12))),
            AnyReply::BrokerRegistration(Err(refusal())),
        ],
        AnyCommand::BrokerHeartbeat(_) => vec![
            AnyReply::BrokerHeartbeat(Ok(HeartbeatState { fenced: false, may_stop: true })),
            AnyReply::BrokerHeartbeat(Ok(HeartbeatState { fenced: true, may_stop: false })),
            AnyReply::BrokerHeartbeat(Err(refusal())),
        ],
        AnyCommand::AlterPartition(_) => vec![
            AnyReply::AlterPartition(Ok(vec![
                Ok(state(10)),
                single.clone(),
                Ok(state(11)),
                Ok(state(12)),
            ])),
            AnyReply::AlterPartition(Err(refusal())),
        ],
        _ => vec![
            AnyReply::AllocateProducerIds(Ok(ProducerIdBlock {
                first: ProducerId(1000),
                count: 1000,
            })),
            AnyReply::AllocateProducerIds(Err(refusal())),
        ],
    };
    for command in commands() {
        let request = command_request(&command).unwrap();
        let committed = replies(&command)
            .into_iter()
            .map(|reply| CommandAnswer::Committed { offset: Offset(0), reply });
        let failed = CommandAnswer::Failed(Refusal::new(ErrorCode::NotController, "no leader"));
        for answer in committed.chain([failed]) {
            let response = back_through_bytes(&command_answer(&request, &answer).unwrap());
            assert_eq!(read_command_answer(&command, response).unwrap(), answer);
        }
    }
}

#[test]
fn whoever_is_no_node_of_ottla_or_a_newer_one_is_told_so() {
    let command = AnyCommand::BrokerRegistration(registration(None));
    let mut request = command_request(&command).unwrap();
    let Request::BrokerRegistration(body) = &mut request else { panic!("not a registration") };
    body.ottla.command_version = COMMAND_VERSION.cast_signed() + 1;
    let error = read_command(&request).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    assert!(error.to_string().contains("newer node"), "{error}");
    let Request::BrokerRegistration(body) = &mut request else { panic!("not a registration") };
    body.ottla = registration::OttlaRegistration::default();
    let error = read_command(&request).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    assert!(error.to_string().contains("no node of ottla"), "{error}");
}

#[test]
fn an_answer_to_something_else_is_none() {
    let commands = commands();
    let ids = CommandAnswer::Committed {
        offset: Offset(1),
        reply: AnyReply::AllocateProducerIds(Err(Refusal::new(ErrorCode::StaleBrokerEpoch, ""))),
    };
    let beat = command_request(&commands[3]).unwrap();
    assert!(command_answer(&beat, &ids).is_err());
    let of_ids = command_answer(&command_request(&commands[6]).unwrap(), &ids).unwrap();
    assert!(read_command_answer(&commands[3], of_ids).is_err());
    // An answer that says nothing of its offset is not believed.
    let response = heartbeat::BrokerHeartbeatResponse::default().into();
    let told = read_command_answer(&commands[3], response).unwrap();
    assert!(matches!(told, CommandAnswer::Failed(_)), "{told:?}");
}
