use super::*;
use crate::config::{AlterOp, ConfigChange};
use crate::error::ErrorCode;
use crate::types::{
    BrokerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicPartition, Uuid,
};

/// A controller that commits at once.
pub(super) struct Cluster {
    pub(super) controller: Controller,
    now: u64,
}

impl Cluster {
    /// The controller is beside broker 1, which is the only voter; a session is 9 s.
    fn new() -> Self {
        Self::with_settings(&[])
    }

    pub(super) fn with_settings(settings: &[(&str, &str)]) -> Self {
        let session = [("broker.session.timeout.ms", "9000")];
        let settings = session.iter().chain(settings);
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = BrokerConfig::resolve(&settings.collect()).unwrap();
        let controller = Controller::new(NodeId(1), config, MetadataImage::empty(), [3, 4]);
        let mut cluster = Self { controller, now: 0 };
        let id = Bootstrap { cluster_id: "c".into(), is_proposal: false };
        assert_eq!(&*cluster.ask(id).unwrap(), "c");
        cluster
    }

    /// Brokers 1 to `count`, active, in the given racks in turn.
    pub(super) fn with_brokers(count: i32, racks: &[&str]) -> Self {
        Self::new().start(count, racks)
    }

    /// As [`Self::with_brokers`], but the controller may move between the brokers.
    pub(super) fn of_voters(count: i32) -> Self {
        let voters: Vec<_> = (1..=count).map(|id| format!("{id}@h{id}:9092")).collect();
        Self::with_settings(&[("controller.quorum.voters", &voters.join(","))]).start(count, &[])
    }

    pub(super) fn start(mut self, count: i32, racks: &[&str]) -> Self {
        let cluster = &mut self;
        for id in 1..=count {
            let rack = racks.iter().copied().cycle().nth(usize::try_from(id - 1).unwrap());
            let epoch = cluster.register(id, 1, rack).unwrap();
            cluster.heartbeat(id, epoch, false, false);
        }
        self
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    pub(super) fn ask<C: Command>(&mut self, command: C) -> C::Reply {
        let decision = self.controller.decide(self.now(), command);
        self.controller.apply_all(&decision.records).unwrap();
        decision.reply
    }

    fn tick(&mut self) {
        let records = self.controller.tick(self.now());
        self.controller.apply_all(&records).unwrap();
    }

    /// Time passes while the controller runs as it should.
    fn pass_until(&mut self, until: u64) {
        while let Some(deadline) = self.controller.next_deadline()
            && deadline <= Duration::from_millis(until)
        {
            self.now = self.now.max(deadline.as_millis().try_into().unwrap());
            self.tick();
        }
        self.now = until;
    }

    fn is_fenced(&self, id: i32) -> bool {
        self.controller.image().broker(NodeId(id)).unwrap().fenced
    }

    /// Each process has a directory of its own.
    fn register(&mut self, id: i32, process: u8, rack: Option<&str>) -> Result<i64, Refusal> {
        let rack = rack.map(Into::into);
        self.ask(BrokerRegistration { rack, ..registration(id, process, process) })
            .map(|epoch| epoch.0)
    }

    pub(super) fn heartbeat(
        &mut self,
        id: i32,
        epoch: i64,
        want_fence: bool,
        want_shutdown: bool,
    ) -> HeartbeatState {
        let beat = beat(id, epoch, 0);
        self.ask(BrokerHeartbeat { want_fence, want_shutdown, ..beat }).unwrap()
    }

    pub(super) fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, Refusal> {
        let topics = vec![topic];
        self.ask(CreateTopics { topics, validate_only: false }).pop().unwrap()
    }

    #[track_caller]
    fn check_refused(&mut self, topic: NewTopic, code: ErrorCode, part: &str) {
        let before = self.controller.image().clone();
        let refusal = self.create(topic).unwrap_err();
        assert_eq!(refusal.code, code, "{}", refusal.message);
        assert!(refusal.message.contains(part), "{}", refusal.message);
        assert_eq!(self.controller.image(), &before);
    }

    pub(super) fn partition(&self, topic: &str, index: i32) -> (i32, Vec<i32>, i32, i32) {
        let state = self.controller.image().partition(topic, PartitionIndex(index)).unwrap();
        let isr = state.isr.iter().map(|node| node.0).collect();
        (state.leader.0, isr, state.leader_epoch.0, state.partition_epoch.0)
    }

    pub(super) fn incremental(
        &mut self,
        resource: ConfigResource,
        name: &str,
        value: &str,
    ) -> Result<(), Refusal> {
        let change =
            ConfigChange { name: name.into(), op: AlterOp::Set, value: Some(value.to_owned()) };
        let alteration = IncrementalAlteration { resource, changes: vec![change] };
        let resources = vec![alteration];
        self.ask(IncrementalAlterConfigs { resources, validate_only: false }).pop().unwrap()
    }
}

pub(super) fn registration(id: i32, process: u8, directory: u8) -> BrokerRegistration {
    BrokerRegistration {
        id: NodeId(id),
        incarnation: Uuid([process; 16]),
        directory_id: Uuid([directory; 16]),
        is_first: true,
        predecessor: None,
        cluster_id: Some("c".into()),
        endpoints: vec![],
        rack: None,
        ready: false,
    }
}

/// A broker that wants to be active and has the metadata up to an offset.
fn beat(id: i32, epoch: i64, metadata: i64) -> BrokerHeartbeat {
    BrokerHeartbeat {
        id: NodeId(id),
        epoch: BrokerEpoch(epoch),
        metadata_offset: Offset(metadata),
        want_fence: false,
        want_shutdown: false,
        handed_over: None,
    }
}

pub(super) fn assigned(name: &str, rows: &[&[i32]]) -> NewTopic {
    let row = |row: &&[i32]| row.iter().map(|&id| NodeId(id)).collect();
    let assignments = PartitionIndex::enumerate(rows.iter().map(row)).collect();
    NewTopic { assignments, ..NewTopic::new(name, -1, -1) }
}

#[test]
fn a_topic_gets_the_defaults_of_the_broker() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let created = cluster.create(NewTopic::new("t", -1, -1)).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (1, 1));
    assert_ne!(created.id, Uuid::ZERO);
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 0, 0));
    assert_eq!(cluster.controller.image().topic("t").unwrap().id, created.id);
}

#[test]
fn bad_topics_are_refused_without_a_trace() {
    use ErrorCode as Code;
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.create(NewTopic::new("a.b", 1, 1)).unwrap();
    let topic = |name: &str, partitions, replicas| NewTopic::new(name, partitions, replicas);
    cluster.check_refused(topic("a.b", 1, 1), Code::TopicAlreadyExists, "already exists");
    cluster.check_refused(topic("a_b", 1, 1), Code::InvalidTopicException, "collides");
    cluster.check_refused(topic("", 1, 1), Code::InvalidTopicException, "empty");
    cluster.check_refused(topic("..", 1, 1), Code::InvalidTopicException, "'..'");
    cluster.check_refused(topic("__cluster_metadata", 1, 1), Code::InvalidRequest, "own log");
    cluster.check_refused(topic("../etc", 1, 1), Code::InvalidTopicException, "characters");
    cluster.check_refused(
        topic("x".repeat(250).as_str(), 1, 1),
        Code::InvalidTopicException,
        "249",
    );
    cluster.check_refused(topic("t", 0, 1), Code::InvalidPartitions, "positive");
    cluster.check_refused(topic("t", 1, 0), Code::InvalidReplicationFactor, "positive");
    cluster.check_refused(topic("t", 1, 3), Code::InvalidReplicationFactor, "only 2 broker(s)");
    cluster.check_refused(topic("t", 10_001, 1), Code::PolicyViolation, "10000");
    let with = |assignment: &[&[i32]]| assigned("t", assignment);
    cluster.check_refused(with(&[&[1], &[]]), Code::InvalidReplicaAssignment, "empty");
    cluster.check_refused(with(&[&[1, 1]]), Code::InvalidReplicaAssignment, "more than once");
    cluster.check_refused(with(&[&[7]]), Code::InvalidReplicaAssignment, "no such broker");
    cluster.check_refused(
        with(&[&[1], &[1, 2]]),
        Code::InvalidReplicaAssignment,
        "other partitions",
    );
    let counted = NewTopic { partitions: 1, ..with(&[&[1]]) };
    cluster.check_refused(counted, Code::InvalidRequest, "must be -1");
    let gap =
        NewTopic { assignments: vec![(PartitionIndex(1), vec![NodeId(1)])], ..topic("t", -1, -1) };
    cluster.check_refused(gap, Code::InvalidReplicaAssignment, "0, 1, 2");
    let config = |name: &str, value: Option<&str>| NewTopic {
        configs: vec![(name.to_owned(), value.map(str::to_owned))],
        ..NewTopic::new("t", 1, 1)
    };
    cluster.check_refused(config("retention", Some("1")), Code::InvalidConfig, "did you mean");
    cluster.check_refused(config("retention.ms", None), Code::InvalidConfig, "null");
    cluster.check_refused(
        config("remote.storage.enable", Some("true")),
        Code::InvalidConfig,
        "Tiered Storage functionality is disabled",
    );
}

#[test]
fn a_name_twice_in_a_request_is_refused_and_the_others_are_created() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let topics = ["a", "b", "a", "b.c", "b_c"].map(|name| NewTopic::new(name, 1, 1)).to_vec();
    let results = cluster.ask(CreateTopics { topics, validate_only: false });
    let codes: Vec<_> = results.iter().map(|one| one.as_ref().err().map(|why| why.code)).collect();
    let twice = Some(ErrorCode::InvalidRequest);
    assert_eq!(codes, [twice, None, twice, None, Some(ErrorCode::InvalidTopicException)]);
    assert_eq!(cluster.controller.image().topics().len(), 2);
}

#[test]
fn no_node_gets_more_replicas_than_it_may_open_files() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.controller = cluster.controller.clone().with_files_max(Some(16));
    // An eighth is left for connections: 14.
    assert!(cluster.create(NewTopic::new("a", 10, 2)).is_ok());
    cluster.check_refused(
        NewTopic::new("b", 5, 2),
        ErrorCode::PolicyViolation,
        "would hold 15 replicas",
    );
    // Of one request, the topics that have room are created.
    let topics = vec![NewTopic::new("c", 3, 2), NewTopic::new("d", 2, 2), NewTopic::new("e", 1, 2)];
    let results = cluster.ask(CreateTopics { topics, validate_only: false });
    let codes: Vec<_> = results.iter().map(|told| told.as_ref().err().map(|no| no.code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::PolicyViolation), None]);
    let more = |count| NewPartitions { name: "e".into(), count, assignments: None };
    let add = |count| CreatePartitions { topics: vec![more(count)], validate_only: false };
    let refused = cluster.ask(add(2)).remove(0).unwrap_err();
    assert_eq!(refused.code, ErrorCode::PolicyViolation);
    assert!(refused.message.contains("ulimit -n"), "{}", refused.message);
    let deleted = DeleteTopics { topics: vec![TopicRef::Name("c".into())] };
    assert!(cluster.ask(deleted).remove(0).is_ok());
    assert_eq!(cluster.ask(add(4)), [Ok(())]);
}

#[test]
fn validating_only_changes_nothing() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let before = cluster.controller.image().clone();
    let topics = vec![NewTopic::new("t", 4, 1)];
    let results = cluster.ask(CreateTopics { topics, validate_only: true });
    let created = results[0].as_ref().unwrap();
    assert_eq!((created.partitions, created.id), (4, Uuid::ZERO));
    assert_eq!(cluster.controller.image(), &before);
}

#[test]
fn replicas_are_spread_over_racks_and_leaders_over_brokers() {
    let mut cluster = Cluster::with_brokers(6, &["x", "y", "z"]);
    cluster.create(NewTopic::new("t", 12, 3)).unwrap();
    let image = cluster.controller.image();
    let mut leaders = BTreeMap::new();
    for partition in &image.topic("t").unwrap().partitions {
        let mut racks: Vec<_> =
            partition.replicas.iter().map(|id| image.broker(*id).unwrap().rack.clone()).collect();
        racks.sort();
        racks.dedup();
        assert_eq!(racks.len(), 3);
        *leaders.entry(partition.leader).or_insert(0) += 1;
    }
    assert!(leaders.values().all(|&count| count == 2), "{leaders:?}");
}

#[test]
fn a_fenced_broker_gets_a_replica_last_and_never_leads() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.register(3, 1, None).unwrap();
    cluster.create(NewTopic::new("two", 6, 2)).unwrap();
    cluster.create(NewTopic::new("three", 6, 3)).unwrap();
    let image = cluster.controller.image();
    for partition in &image.topic("two").unwrap().partitions {
        assert!(!partition.replicas.contains(&NodeId(3)));
    }
    for partition in &image.topic("three").unwrap().partitions {
        assert_eq!(partition.replicas[2], NodeId(3));
        assert_eq!(partition.isr.len(), 2);
    }
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    cluster.create(NewTopic::new("a", 2, 1)).unwrap();
    let id = cluster.create(NewTopic::new("b", 1, 1)).unwrap().id;
    let topics = vec![
        TopicRef::Name("a".into()),
        TopicRef::Id(id),
        TopicRef::Name("z".into()),
        TopicRef::Id(Uuid([9; 16])),
    ];
    let results = cluster.ask(DeleteTopics { topics });
    assert_eq!(&*results[1].as_ref().unwrap().name, "b");
    assert_eq!(results[2].as_ref().unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(results[3].as_ref().unwrap_err().code, ErrorCode::UnknownTopicId);
    assert_eq!(cluster.controller.image().topics().len(), 0);
    let again = cluster.create(NewTopic::new("b", 1, 1)).unwrap().id;
    assert_ne!(again, id);
}

#[test]
fn a_topic_named_by_name_and_by_id_at_once_is_refused() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let id = cluster.create(NewTopic::new("a", 1, 1)).unwrap().id;
    let topics = vec![TopicRef::Name("a".into()), TopicRef::Id(id)];
    let results = cluster.ask(DeleteTopics { topics });
    assert!(results.iter().all(|one| one.as_ref().unwrap_err().code == ErrorCode::InvalidRequest));
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.create(NewTopic::new("t", 2, 1)).unwrap();
    let mut add = |name: &str, count: i32, rows: Option<&[&[i32]]>| {
        let assignments = rows.map(|rows| {
            rows.iter().map(|row| row.iter().map(|&id| NodeId(id)).collect()).collect()
        });
        let topics = vec![NewPartitions { name: name.into(), count, assignments }];
        let mut results = cluster.ask(CreatePartitions { topics, validate_only: false });
        results.pop().unwrap().map_err(|refusal| refusal.code)
    };
    assert_eq!(add("t", 3, None), Ok(()));
    assert_eq!(add("t", 4, Some(&[&[2]])), Ok(()));
    assert_eq!(add("t", 4, None), Err(ErrorCode::InvalidPartitions));
    assert_eq!(add("t", 1, None), Err(ErrorCode::InvalidPartitions));
    assert_eq!(add("t", -1, None), Err(ErrorCode::InvalidPartitions));
    assert_eq!(add("z", 4, None), Err(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(add("t", 6, Some(&[&[2]])), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(add("t", 5, Some(&[&[1, 2]])), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(cluster.partition("t", 3), (2, vec![2], 0, 0));
}

#[test]
fn settings_are_stored_changed_and_replaced() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    cluster.create(NewTopic::new("t", 1, 1)).unwrap();
    let topic = ConfigResource::Topic("t".into());
    cluster.incremental(topic.clone(), "retention.ms", "5").unwrap();
    cluster.incremental(topic.clone(), "segment.bytes", "2000000").unwrap();
    assert_eq!(cluster.controller.image().topic_config("t").len(), 2);
    let alteration = ConfigAlteration {
        resource: topic.clone(),
        settings: vec![("retention.ms".into(), Some("6".into()))],
    };
    let altered = cluster.ask(AlterConfigs { resources: vec![alteration], validate_only: false });
    assert_eq!(altered, [Ok(())]);
    let stored = cluster.controller.image().topic_config("t");
    assert_eq!((stored.len(), stored["retention.ms"].as_str()), (1, "6"));

    let code = |result: Result<(), Refusal>| result.unwrap_err().code;
    let gone = ConfigResource::Topic("z".into());
    let refused = cluster.incremental(gone, "retention.ms", "5");
    assert_eq!(code(refused), ErrorCode::UnknownTopicOrPartition);
    let refused = cluster.incremental(topic, "retention.ms", "x");
    assert_eq!(code(refused), ErrorCode::InvalidConfig);
    let refused = cluster.incremental(ConfigResource::ClusterDefault, "num.partitions", "3");
    assert_eq!(code(refused), ErrorCode::InvalidConfig);
    let refused = cluster.incremental(ConfigResource::Broker(NodeId(9)), "log.retention.ms", "3");
    assert_eq!(code(refused), ErrorCode::BrokerIdNotRegistered);
    cluster.incremental(ConfigResource::ClusterDefault, "message.max.bytes", "77").unwrap();
    assert_eq!(config_resource(16, "m").unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(config_resource(4, ""), Ok(ConfigResource::ClusterDefault));
}

#[test]
fn a_broker_that_is_not_heard_from_is_fenced_and_the_isr_takes_over() {
    let mut cluster = Cluster::with_brokers(3, &[]);
    cluster.create(assigned("t", &[&[2, 3, 1]])).unwrap();
    cluster.create(assigned("u", &[&[2]])).unwrap();
    cluster.pass_until(5_000);
    cluster.heartbeat(3, 2, false, false);
    cluster.pass_until(8_999);
    assert!(!cluster.is_fenced(2));
    assert_eq!(cluster.controller.next_deadline(), Some(Duration::from_secs(9)));
    cluster.pass_until(9_000);
    assert!(cluster.is_fenced(2));
    assert_eq!(cluster.partition("t", 0), (3, vec![3, 1], 1, 1));
    assert_eq!(cluster.partition("u", 0), (-1, vec![], 1, 1));
    cluster.heartbeat(2, 1, false, false);
    assert_eq!(cluster.partition("t", 0), (3, vec![3, 1], 1, 1));
    assert_eq!(cluster.partition("u", 0), (2, vec![2], 2, 2));
}

#[test]
fn nobody_is_fenced_for_the_time_that_the_controller_stood_still() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.pass_until(5_000);
    // Called again a minute after it should have been: 4 seconds of the session are left.
    cluster.now = 65_500;
    cluster.tick();
    cluster.pass_until(68_999);
    assert!(!cluster.is_fenced(2));
    cluster.pass_until(69_000);
    assert!(cluster.is_fenced(2));
}

#[test]
fn a_controller_that_begins_to_lead_gives_everybody_a_whole_session() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.pass_until(5_000);
    cluster.controller.restore(cluster.controller.image().clone());
    cluster.now = 60_000;
    cluster.tick();
    cluster.pass_until(68_999);
    assert!(!cluster.is_fenced(2));
    cluster.pass_until(69_000);
    assert!(cluster.is_fenced(2));
}

#[test]
fn the_silence_of_the_leader_before_counts_up_to_half_a_session() {
    for (last, fenced_at) in [(57_000, 66_000), (0, 64_500), (60_000, 69_000), (70_000, 69_000)] {
        let mut cluster = Cluster::with_brokers(3, &[]);
        cluster.pass_until(5_000);
        cluster.controller.restore(cluster.controller.image().clone());
        cluster.controller.note_silence(Some((NodeId(2), Duration::from_millis(last))));
        cluster.now = 60_000;
        cluster.tick();
        cluster.pass_until(fenced_at - 1);
        assert!(!cluster.is_fenced(2), "{last}");
        cluster.pass_until(fenced_at);
        assert!(cluster.is_fenced(2), "{last}");
        assert_eq!(cluster.is_fenced(3), fenced_at == 69_000, "{last}");
    }
}

#[test]
fn the_broker_beside_the_controller_needs_no_heartbeat() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    assert_eq!(cluster.controller.next_deadline(), None);
    cluster.now = 1_000_000;
    cluster.tick();
    assert!(!cluster.controller.image().broker(NodeId(1)).unwrap().fenced);
}

#[test]
fn a_restarted_broker_leads_again_in_a_new_term() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    cluster.create(NewTopic::new("t", 2, 1)).unwrap();
    let start = |process: u8| BrokerRegistration { ready: true, ..registration(1, process, 1) };
    assert_eq!(cluster.ask(start(2)), Ok(BrokerEpoch(1)));
    assert_eq!(cluster.partition("t", 1), (1, vec![1], 1, 1));
    assert_eq!(cluster.ask(start(2)), Ok(BrokerEpoch(1)));
    assert_eq!(cluster.partition("t", 1), (1, vec![1], 1, 1));
}

#[test]
fn a_second_process_with_the_same_id_is_refused_while_the_first_lives() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    let refusal = cluster.register(2, 9, None).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::DuplicateBrokerRegistration);
    cluster.pass_until(9_000);
    cluster.register(2, 9, None).unwrap();
}

#[test]
fn a_process_that_has_the_directory_of_the_last_one_replaces_it_at_once() {
    let mut cluster = Cluster::of_voters(2);
    let epoch = cluster.ask(registration(2, 7, 1)).unwrap();
    assert_eq!(epoch, BrokerEpoch(2));
    // The one that it replaced is alive after all, and must not replace it in turn: each time with a word why.
    let stale = cluster.ask(beat(2, 1, 0)).unwrap_err();
    assert_eq!(stale.code, ErrorCode::StaleBrokerEpoch);
    let again = BrokerRegistration { is_first: false, ..registration(2, 1, 1) };
    let refusal = cluster.ask(again.clone()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::DuplicateBrokerRegistration);
    let directory = Uuid([1; 16]).to_string();
    assert!(refusal.message.contains(&directory), "{}", refusal.message);
    // Nor does one whose directory nobody knows.
    let unknown = BrokerRegistration { directory_id: Uuid::ZERO, ..registration(2, 8, 0) };
    let code = |refused: Result<BrokerEpoch, Refusal>| refused.unwrap_err().code;
    assert_eq!(code(cluster.ask(unknown)), ErrorCode::DuplicateBrokerRegistration);
    cluster.pass_until(9_000);
    assert_eq!(cluster.ask(again), Ok(BrokerEpoch(3)));
}

#[test]
fn a_process_that_is_proven_dead_is_not_waited_for() {
    let mut cluster = Cluster::of_voters(2);
    cluster.create(assigned("t", &[&[2, 1]])).unwrap();
    let epoch = cluster.controller.image().broker(NodeId(2)).unwrap().epoch;
    let bury = |cluster: &mut Cluster, epoch| cluster.ask(BuryBroker { id: NodeId(2), epoch });
    // A report about the process before this one.
    let stale = bury(&mut cluster, BrokerEpoch(epoch.0 - 1)).unwrap_err();
    assert_eq!(stale.code, ErrorCode::StaleBrokerEpoch);
    assert!(!cluster.is_fenced(2));
    bury(&mut cluster, epoch).unwrap();
    assert!(cluster.is_fenced(2));
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 1, 1));
    // Several nodes report it.
    bury(&mut cluster, epoch).unwrap();
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 1, 1));
}

#[test]
fn a_registration_counts_as_a_sign_of_life() {
    let mut cluster = Cluster::of_voters(2);
    cluster.pass_until(9_000);
    cluster.register(2, 7, None).unwrap();
    // It recovers its logs before its first heartbeat.
    let refusal = cluster.register(2, 8, None).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::DuplicateBrokerRegistration);
}

#[test]
fn a_proposed_cluster_id_is_for_a_cluster_without_one() {
    let mut cluster = Cluster::new();
    let propose = Bootstrap { cluster_id: "d".into(), is_proposal: true };
    assert_eq!(&*cluster.ask(propose).unwrap(), "c");
    let foreign = Bootstrap { cluster_id: "d".into(), is_proposal: false };
    let refusal = cluster.ask(foreign).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InconsistentClusterId);
    assert!(refusal.message.contains("cluster d") && refusal.message.contains("cluster c"));
    let mut empty =
        Controller::new(NodeId(1), BrokerConfig::default(), MetadataImage::empty(), [1, 2]);
    let propose = Bootstrap { cluster_id: "e".into(), is_proposal: true };
    let decision = empty.decide(Duration::ZERO, propose);
    assert_eq!(decision.reply, Ok("e".into()));
    empty.apply_all(&decision.records).unwrap();
    assert_eq!(empty.image().cluster_id().map(|id| &**id), Some("e"));
}

#[test]
fn a_stopping_broker_hands_over() {
    let mut cluster = Cluster::of_voters(3);
    cluster.create(assigned("t", &[&[2, 1]])).unwrap();
    let leaving = BrokerHeartbeat { want_shutdown: true, ..beat(2, 1, 0) };
    let state = |cluster: &mut Cluster, beat: BrokerHeartbeat| {
        let HeartbeatState { fenced, may_stop } = cluster.ask(beat).unwrap();
        (fenced, may_stop)
    };
    assert_eq!(state(&mut cluster, leaving), (false, false));
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 1, 1));
    assert!(cluster.controller.image().broker(NodeId(2)).unwrap().shutting_down);
    // It may stop once every other active broker knows, and is fenced by then.
    let handed_over = BrokerHeartbeat { handed_over: Some(Offset(17)), ..leaving };
    cluster.ask(beat(1, 0, 17)).unwrap();
    cluster.ask(beat(3, 2, 16)).unwrap();
    assert_eq!(state(&mut cluster, handed_over), (false, false));
    cluster.ask(beat(3, 2, 18)).unwrap();
    assert_eq!(state(&mut cluster, leaving), (false, false), "it does not say since when");
    assert_eq!(state(&mut cluster, handed_over), (true, true));
    assert_eq!(state(&mut cluster, handed_over), (true, true));
    // Nobody is waited for who is gone.
    let last = BrokerHeartbeat { want_shutdown: true, ..beat(3, 2, 0) };
    cluster.ask(BrokerHeartbeat { want_fence: true, ..beat(1, 0, 17) }).unwrap();
    assert_eq!(state(&mut cluster, last), (true, true));
}

#[test]
fn every_broker_of_several_voters_must_be_heard_from() {
    let mut cluster = Cluster::of_voters(2);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    cluster.pass_until(5_000);
    cluster.heartbeat(2, 1, false, false);
    cluster.pass_until(9_000);
    assert!(cluster.is_fenced(1), "although the controller is beside it");
    assert_eq!(cluster.partition("t", 0), (2, vec![2], 1, 1));
    // While it is silent it can be unregistered, and only then.
    let refused = cluster.ask(UnregisterBroker { id: NodeId(2) }).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    cluster.ask(UnregisterBroker { id: NodeId(1) }).unwrap();
}

#[test]
fn a_controller_that_moved_gives_everybody_a_whole_session_itself_among_them() {
    let mut cluster = Cluster::of_voters(3);
    cluster.pass_until(5_000);
    cluster.heartbeat(3, 2, true, false);
    cluster.controller.restore(cluster.controller.image().clone());
    cluster.now = 60_000;
    cluster.heartbeat(2, 1, false, false);
    // It stands still for three seconds, half a second of which it may.
    cluster.now = 63_500;
    cluster.tick();
    cluster.pass_until(71_999);
    assert_eq!([1, 2, 3].map(|id| cluster.is_fenced(id)), [false, false, true]);
    cluster.pass_until(72_000);
    assert_eq!([1, 2, 3].map(|id| cluster.is_fenced(id)), [true, true, true]);
}

#[test]
fn partitions_return_to_their_preferred_leaders_in_time() {
    let beats = |cluster: &mut Cluster, until: u64| {
        while cluster.now < until {
            cluster.pass_until((cluster.now + 2_000).min(until));
            cluster.heartbeat(1, 0, false, false);
            cluster.heartbeat(2, 1, false, false);
        }
    };
    for (enable, leader) in [("true", 2), ("false", 1)] {
        let settings = [
            ("controller.quorum.voters", "1@h1:9092,2@h2:9092"),
            ("auto.leader.rebalance.enable", enable),
        ];
        let mut cluster = Cluster::with_settings(&settings).start(2, &[]);
        cluster.create(assigned("t", &[&[2, 1]])).unwrap();
        cluster.create(assigned("u", &[&[2, 1]])).unwrap();
        cluster.heartbeat(2, 1, true, false);
        assert_eq!((cluster.partition("t", 0).0, cluster.partition("u", 0).0), (1, 1));
        cluster.heartbeat(2, 1, false, false);
        let joined = |cluster: &mut Cluster| {
            let image = cluster.controller.image();
            let change = IsrChange {
                topic_id: image.topic("t").unwrap().id,
                partition: PartitionIndex(0),
                leader_epoch: LeaderEpoch(1),
                partition_epoch: PartitionEpoch(1),
                isr: [1, 2].map(|id| (NodeId(id), BrokerEpoch::UNKNOWN)).to_vec(),
            };
            let (broker, epoch) = (NodeId(1), BrokerEpoch(0));
            cluster.ask(AlterPartition { broker, epoch, changes: vec![change] }).unwrap();
        };
        joined(&mut cluster);
        beats(&mut cluster, 299_000);
        assert_eq!(cluster.partition("t", 0).0, 1);
        beats(&mut cluster, 303_000);
        assert_eq!(cluster.partition("t", 0).0, leader);
        // One that is not in sync gets nothing.
        assert_eq!(cluster.partition("u", 0).0, 1);
    }
}

#[test]
fn an_unclean_leader_is_elected_only_where_the_topic_allows_it() {
    for (allowed, leader) in [("false", -1), ("true", 1)] {
        let mut cluster = Cluster::with_brokers(2, &[]);
        let configs = vec![("unclean.leader.election.enable".to_owned(), Some(allowed.to_owned()))];
        cluster.create(NewTopic { configs, ..assigned("t", &[&[2, 1]]) }).unwrap();
        shrink(&mut cluster, &[2], 0).unwrap();
        cluster.heartbeat(2, 1, true, false);
        assert_eq!(cluster.partition("t", 0).0, leader);
    }
}

fn shrink(cluster: &mut Cluster, isr: &[i32], partition_epoch: i32) -> Result<IsrState, Refusal> {
    let image = cluster.controller.image();
    let topic = image.topic("t").unwrap();
    let leader = topic.partitions[0].leader;
    let change = IsrChange {
        topic_id: topic.id,
        partition: PartitionIndex(0),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(partition_epoch),
        isr: isr.iter().map(|&id| (NodeId(id), BrokerEpoch::UNKNOWN)).collect(),
    };
    let epoch = image.broker(leader).unwrap().epoch;
    let changes = vec![change];
    cluster.ask(AlterPartition { broker: leader, epoch, changes }).unwrap().pop().unwrap()
}

#[test]
fn a_leader_changes_its_isr_from_the_state_that_it_knows() {
    let mut cluster = Cluster::with_brokers(3, &[]);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    assert_eq!(shrink(&mut cluster, &[1], 0).unwrap().partition_epoch, PartitionEpoch(1));
    let code = |result: Result<IsrState, Refusal>| result.unwrap_err().code;
    assert_eq!(code(shrink(&mut cluster, &[1, 2], 0)), ErrorCode::InvalidUpdateVersion);
    assert_eq!(code(shrink(&mut cluster, &[1, 2], 2)), ErrorCode::NotController);
    assert_eq!(code(shrink(&mut cluster, &[2], 1)), ErrorCode::InvalidRequest);
    assert_eq!(code(shrink(&mut cluster, &[1, 3], 1)), ErrorCode::InvalidRequest);
    let epoch = cluster.register(2, 1, None).unwrap();
    cluster.heartbeat(2, epoch, true, false);
    assert_eq!(code(shrink(&mut cluster, &[1, 2], 1)), ErrorCode::IneligibleReplica);
    cluster.heartbeat(2, epoch, false, false);
    assert_eq!(shrink(&mut cluster, &[1, 2], 1).unwrap().isr, [NodeId(1), NodeId(2)]);
}

#[test]
fn the_preferred_leader_is_elected_when_it_is_in_sync() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.create(assigned("t", &[&[2, 1]])).unwrap();
    cluster.heartbeat(2, 1, true, false);
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 1, 1));
    let elect = |cluster: &mut Cluster, partitions: Option<Vec<TopicPartition>>| {
        let results = cluster.ask(ElectLeaders { election: Election::Preferred, partitions });
        results.into_iter().map(|(_, result)| result.map_err(|why| why.code)).collect::<Vec<_>>()
    };
    assert_eq!(elect(&mut cluster, None), [Err(ErrorCode::PreferredLeaderNotAvailable)]);
    cluster.heartbeat(2, 1, false, false);
    let topic_id = cluster.controller.image().topic("t").unwrap().id;
    let altered = cluster.ask(AlterPartition {
        broker: NodeId(1),
        epoch: BrokerEpoch(0),
        changes: vec![IsrChange {
            topic_id,
            partition: PartitionIndex(0),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            isr: vec![(NodeId(1), BrokerEpoch(0)), (NodeId(2), BrokerEpoch(1))],
        }],
    });
    assert!(altered.unwrap()[0].is_ok());
    assert_eq!(elect(&mut cluster, None), [Ok(())]);
    assert_eq!(cluster.partition("t", 0), (2, vec![1, 2], 2, 3));
    assert_eq!(elect(&mut cluster, None), []);
    let named = vec![TopicPartition::new("t", 0), TopicPartition::new("z", 0)];
    assert_eq!(
        elect(&mut cluster, Some(named)),
        [Err(ErrorCode::ElectionNotNeeded), Err(ErrorCode::UnknownTopicOrPartition)]
    );
}

#[test]
fn producer_ids_come_in_blocks_that_never_meet() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let mut block = |epoch: i64| {
        let command = AllocateProducerIds { broker: NodeId(1), epoch: BrokerEpoch(epoch) };
        cluster.ask(command).map(|block| (block.first.0, block.count)).map_err(|why| why.code)
    };
    assert_eq!(block(0), Ok((0, 1000)));
    assert_eq!(block(0), Ok((1000, 1000)));
    assert_eq!(block(5), Err(ErrorCode::StaleBrokerEpoch));
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new();
    let refusal =
        cluster.ask(Bootstrap { cluster_id: "d".into(), is_proposal: false }).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InconsistentClusterId);
}

#[test]
fn a_running_broker_is_not_unregistered() {
    let mut cluster = Cluster::with_brokers(3, &[]);
    let unregister = |cluster: &mut Cluster, id| cluster.ask(UnregisterBroker { id: NodeId(id) });
    for running in [1, 2] {
        let refusal = unregister(&mut cluster, running).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidRequest);
    }
    cluster.heartbeat(2, 1, false, true);
    unregister(&mut cluster, 2).unwrap();
    cluster.pass_until(9_000);
    unregister(&mut cluster, 3).unwrap();
    assert_eq!(unregister(&mut cluster, 3).unwrap_err().code, ErrorCode::BrokerIdNotRegistered);
}

#[test]
fn a_feature_that_was_turned_off_stays_off() {
    let mut cluster = Cluster::new();
    let update = |level, upgrade| UpdateFeatures {
        updates: vec![FeatureUpdate { feature: "group.version".into(), level, upgrade }],
        validate_only: false,
    };
    let refusal = cluster.ask(update(0, UpgradeType::Upgrade)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidUpdateVersion);
    cluster.ask(update(0, UpgradeType::SafeDowngrade)).unwrap();
    assert_eq!(cluster.controller.image().feature("group.version"), 0);
    // The broker starts again.
    cluster.ask(Bootstrap { cluster_id: "c".into(), is_proposal: false }).unwrap();
    assert_eq!(cluster.controller.image().feature("group.version"), 0);
    assert!(cluster.controller.image().features().all(|(name, _)| &**name != "group.version"));
    cluster.ask(update(1, UpgradeType::Upgrade)).unwrap();
    assert_eq!(cluster.controller.image().feature("group.version"), 1);
}

#[test]
fn an_older_cluster_keeps_its_version_of_transactions() {
    let version = |cluster: &Cluster| cluster.controller.image().feature("transaction.version");
    let new = Cluster::new();
    assert_eq!(version(&new), 2);
    let config = BrokerConfig::resolve(&ConfigMap::new()).unwrap();
    let controller = Controller::new(NodeId(1), config, MetadataImage::empty(), [3, 4]);
    let mut older = Cluster { controller, now: 0 };
    let feature = |name: &str, level| MetadataRecord::Feature { name: name.into(), level };
    let before = [feature("group.version", 1), feature("metadata.version", 30)];
    older.controller.apply_all(&before).unwrap();
    for _ in 0..2 {
        older.ask(Bootstrap { cluster_id: "c".into(), is_proposal: true }).unwrap();
        assert_eq!(version(&older), 0);
        assert!(older.controller.image().has_decided("transaction.version"));
    }
    let feature = "transaction.version".into();
    let update = FeatureUpdate { feature, level: 2, upgrade: UpgradeType::Upgrade };
    older.ask(UpdateFeatures { updates: vec![update], validate_only: false }).unwrap();
    assert_eq!(version(&older), 2);
}

/// Moves partition 0 of topic `t`.
fn reassign(cluster: &mut Cluster, target: Option<&[i32]>) -> Result<(), Refusal> {
    let replicas = target.map(|target| target.iter().copied().map(NodeId).collect());
    let reassignments = vec![Reassignment { partition: TopicPartition::new("t", 0), replicas }];
    let allow_replication_factor_change = true;
    let command = AlterPartitionReassignments { reassignments, allow_replication_factor_change };
    cluster.ask(command).pop().unwrap()
}

/// Replicas, those that are added, those that leave, and the ISR of partition 0 of topic `t`.
fn replicas(cluster: &Cluster) -> [Vec<i32>; 4] {
    let state = cluster.controller.image().partition("t", PartitionIndex(0)).unwrap();
    [&state.replicas, &state.adding, &state.removing, &state.isr]
        .map(|nodes| nodes.iter().map(|node| node.0).collect())
}

/// The leader of partition 0 of topic `t` reports an ISR.
pub(super) fn report(cluster: &mut Cluster, isr: &[i32]) -> Result<IsrState, Refusal> {
    let (leader, _, leader_epoch, partition_epoch) = cluster.partition("t", 0);
    let image = cluster.controller.image();
    let change = IsrChange {
        topic_id: image.topic("t").unwrap().id,
        partition: PartitionIndex(0),
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch: PartitionEpoch(partition_epoch),
        isr: isr.iter().map(|node| (NodeId(*node), BrokerEpoch::UNKNOWN)).collect(),
    };
    let broker = NodeId(leader);
    let epoch = image.broker(broker).unwrap().epoch;
    cluster.ask(AlterPartition { broker, epoch, changes: vec![change] }).unwrap().pop().unwrap()
}

#[test]
fn a_partition_moves_once_its_new_replicas_are_in_sync() {
    let mut cluster = Cluster::with_brokers(4, &[]);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    reassign(&mut cluster, Some(&[3, 4])).unwrap();
    assert_eq!(replicas(&cluster), [vec![3, 4, 1, 2], vec![3, 4], vec![1, 2], vec![1, 2]]);
    assert_eq!(
        cluster.partition("t", 0),
        (1, vec![1, 2], 0, 1),
        "nobody has left: the term goes on"
    );
    report(&mut cluster, &[1, 2, 3]).unwrap();
    assert_eq!(replicas(&cluster)[0], [3, 4, 1, 2]);
    let refusal = report(&mut cluster, &[1, 2, 3, 4]).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NewLeaderElected);
    assert_eq!(replicas(&cluster), [vec![3, 4], vec![], vec![], vec![3, 4]]);
    assert_eq!(cluster.partition("t", 0), (3, vec![3, 4], 1, 3));
}

#[test]
fn a_move_that_adds_nobody_is_complete_at_once() {
    let mut cluster = Cluster::with_brokers(3, &[]);
    cluster.create(assigned("t", &[&[1, 2, 3]])).unwrap();
    reassign(&mut cluster, Some(&[3, 2, 1])).unwrap();
    assert_eq!(replicas(&cluster), [vec![3, 2, 1], vec![], vec![], vec![1, 2, 3]]);
    assert_eq!(cluster.partition("t", 0), (1, vec![1, 2, 3], 0, 1));
    reassign(&mut cluster, Some(&[3, 2])).unwrap();
    assert_eq!(replicas(&cluster), [vec![3, 2], vec![], vec![], vec![2, 3]]);
    assert_eq!(cluster.partition("t", 0), (3, vec![2, 3], 1, 2));
    reassign(&mut cluster, Some(&[3, 2])).unwrap();
    assert_eq!(cluster.partition("t", 0), (3, vec![2, 3], 1, 2), "nothing changes");
}

#[test]
fn a_follower_that_leaves_starts_a_new_term() {
    let mut cluster = Cluster::with_brokers(2, &[]);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    reassign(&mut cluster, Some(&[1])).unwrap();
    assert_eq!(cluster.partition("t", 0), (1, vec![1], 1, 1));
}

#[test]
fn a_move_is_cancelled_or_replaced() {
    let mut cluster = Cluster::with_brokers(4, &[]);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    let refusal = reassign(&mut cluster, None).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NoReassignmentInProgress);
    reassign(&mut cluster, Some(&[3, 2])).unwrap();
    report(&mut cluster, &[1, 2]).unwrap();
    reassign(&mut cluster, Some(&[4, 2])).unwrap();
    assert_eq!(replicas(&cluster), [vec![4, 2, 1], vec![4], vec![1], vec![1, 2]], "3 is dropped");
    reassign(&mut cluster, None).unwrap();
    assert_eq!(replicas(&cluster), [vec![2, 1], vec![], vec![], vec![1, 2]]);
    assert_eq!(cluster.partition("t", 0).0, 1);
}

#[test]
fn returning_to_replicas_that_are_not_in_sync_takes_an_unclean_election() {
    for (allowed, leader) in [("false", None), ("true", Some(1))] {
        let mut cluster = Cluster::with_brokers(3, &[]);
        let configs = vec![("unclean.leader.election.enable".to_owned(), Some(allowed.to_owned()))];
        cluster.create(NewTopic { configs, ..assigned("t", &[&[1]]) }).unwrap();
        reassign(&mut cluster, Some(&[2, 3])).unwrap();
        report(&mut cluster, &[1, 2]).unwrap();
        cluster.heartbeat(1, 0, true, false);
        assert_eq!(replicas(&cluster)[3], [2]);
        cluster.heartbeat(1, 0, false, false);
        let cancelled = reassign(&mut cluster, None);
        match leader {
            None => {
                assert_eq!(cancelled.unwrap_err().code, ErrorCode::InvalidReplicaAssignment);
                assert_eq!(cluster.partition("t", 0).0, 2);
            }
            Some(leader) => {
                cancelled.unwrap();
                assert_eq!(replicas(&cluster), [vec![1], vec![], vec![], vec![1]]);
                assert_eq!(cluster.partition("t", 0).0, leader);
            }
        }
    }
}

#[test]
fn a_move_that_cannot_be_is_refused() {
    let mut cluster = Cluster::with_brokers(3, &[]);
    cluster.create(assigned("t", &[&[1, 2]])).unwrap();
    for target in [&[][..], &[9], &[1, 1], &[-1]] {
        let refusal = reassign(&mut cluster, Some(target)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidReplicaAssignment, "{target:?}");
    }
    let to = |index, ids: &[i32]| Reassignment {
        partition: TopicPartition::new("t", index),
        replicas: Some(ids.iter().copied().map(NodeId).collect()),
    };
    let mut ask = |reassignments: Vec<Reassignment>, allow_replication_factor_change| {
        let command =
            AlterPartitionReassignments { reassignments, allow_replication_factor_change };
        let outcomes = cluster.ask(command).into_iter();
        outcomes.map(|one| one.err().map(|refusal| refusal.code)).collect::<Vec<_>>()
    };
    let other_count = Some(ErrorCode::InvalidReplicationFactor);
    assert_eq!(ask(vec![to(0, &[1, 2, 3])], false), [other_count]);
    let unknown = Some(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(ask(vec![to(1, &[1]), to(0, &[1, 3])], false), [unknown, None]);
    let twice = Some(ErrorCode::InvalidRequest);
    assert_eq!(ask(vec![to(0, &[2, 1]), to(0, &[1, 2])], true), [None, twice]);
    // While it moves, the count is that of the target.
    assert_eq!(ask(vec![to(0, &[3])], false), [other_count]);
}
