//! How long the cluster takes for what its settings bound, in simulated time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ottla::env::Env;
use ottla::env::sim::SimRun;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ottla::protocol::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use tokio::time::Instant;

use super::nodes::{Cluster, address};
use crate::broker::frames::Wire;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const SEEDS: std::ops::Range<u64> = 0..4;
const SIZE: u8 = 3;
const TOPIC: &str = "t";
/// Each node leads some of them.
const PARTITIONS: i32 = 6;
/// `broker.session.timeout.ms` as it is by default.
const SESSION: Duration = Duration::from_secs(3);
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// With a cluster that serves, for each of some seeds.
fn with_cluster(work: impl AsyncFn(&SimRun, &mut Cluster, &Env)) {
    for seed in SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let run = SimRun::new(seed);
            run.net.set_delay_ms_max(seed % 4);
            let mut cluster = Cluster::new(&run, SIZE);
            cluster.boot_all().await;
            let client = run.machine("client", CLIENT).env();
            create(&client).await;
            until(async || leaders(&client, 1).await.is_some_and(|ids| ids.contains(&3))).await;
            work(&run, &mut cluster, &client).await;
        });
    }
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "it does not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn create(client: &Env) {
    let topic = CreatableTopic {
        name: TOPIC.into(),
        num_partitions: PARTITIONS,
        replication_factor: i16::from(SIZE),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let mut wire = Wire::connect(client, &address(1)).await.unwrap();
    assert_eq!(wire.call(7, request).await.unwrap().topics[0].error_code, 0);
}

/// Who leads each partition, as a node tells; -1 where nobody does.
async fn leaders(client: &Env, node: u8) -> Option<Vec<i32>> {
    let topic = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
    let mut wire = Wire::connect(client, &address(node)).await?;
    let told = wire.call(12, request).await?.topics.remove(0);
    Some(told.partitions.iter().map(|partition| partition.leader_id).collect())
}

async fn quorum_leader(client: &Env) -> u8 {
    let partitions = vec![PartitionData::default()];
    let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions };
    let mut wire = Wire::connect(client, &address(1)).await.unwrap();
    let told = wire.call(2, DescribeQuorumRequest { topics: vec![topic] }).await.unwrap();
    u8::try_from(told.topics[0].partitions[0].leader_id).unwrap()
}

#[test]
fn a_leader_of_the_quorum_that_falls_silent_is_replaced_after_one_session() {
    with_cluster(async |run, cluster, client| {
        let silent = quorum_leader(client).await;
        let survivor = (1..=SIZE).find(|id| *id != silent).unwrap();
        let ip = |id: u8| cluster.nodes[usize::from(id) - 1].machine.ip;
        let others = (1..=SIZE).filter(|id| *id != silent).map(ip).chain([CLIENT]);
        for other in others {
            run.net.cut(ip(silent), other);
            run.net.cut(other, ip(silent));
        }
        let began = Instant::now();
        until(async || {
            let leaders = leaders(client, survivor).await.unwrap();
            leaders.iter().all(|id| *id >= 0 && *id != i32::from(silent))
        })
        .await;
        let took = began.elapsed();
        // Not a session and an election: what it was silent for before the election counts.
        assert!(took < SESSION + Duration::from_millis(700), "seed {}: {took:?}", run.seed);
        // As long as it takes to prove something by silence.
        assert!(took + Duration::from_millis(700) > SESSION, "seed {}: {took:?}", run.seed);
    });
}

#[test]
fn a_cluster_that_stops_waits_for_nobody_who_has_gone() {
    with_cluster(async |run, cluster, _| {
        let began = Instant::now();
        cluster.stop_all().await;
        let took = began.elapsed();
        assert!(took < SESSION * 2 / 3, "seed {}: {took:?}", run.seed);
    });
}
