//! Consumers in groups, with both protocols and every assignor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::client::admin::GroupFilter;
use ottla::client::producer::ProducerRecord;
use ottla::client::{
    Assignor, AutoOffsetReset, Client, GroupConsumer, GroupOptions, GroupProtocol,
    OffsetAndMetadata, PollOptions, Polled, Subscription,
};
use ottla::columnar::{DecodeOptions, Decoded};
use ottla::error::ErrorCode;
use ottla::protocol::ApiKey;
use ottla::types::{Offset, TopicPartition};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use tokio::sync::watch;

use crate::peers::{Peer, unique};

against_both!(
    peers:
    a_group_goes_on_where_it_stopped,
    partitions_move_between_members_and_no_row_is_lost_or_doubled,
    who_stays_away_too_long_loses_its_partitions_and_may_come_back,
    what_is_finished_is_committed_by_itself,
    a_pattern_finds_the_topics_that_it_matches_whole,
    a_member_that_asks_for_nonsense_is_told_so,
    a_group_is_listed_described_reset_and_deleted,
);

const WAIT: PollOptions = PollOptions { max_wait: Duration::from_secs(20), fill: false };
const SHORT: PollOptions = PollOptions { max_wait: Duration::from_millis(50), fill: false };

/// The protocols that a peer serves: a build of ours may know the consumer protocol without serving
/// it.
fn protocols(peer: &Peer) -> Vec<GroupProtocol> {
    let serves = peer.name == "Apache Kafka" || ApiKey::ConsumerGroupHeartbeat.is_served();
    let consumer = serves.then_some(GroupProtocol::Consumer);
    [GroupProtocol::Classic].into_iter().chain(consumer).collect()
}

/// Every way to be a member.
fn kinds(peer: &Peer) -> Vec<(GroupProtocol, Vec<Assignor>)> {
    let classic = Assignor::ALL.map(|assignor| (GroupProtocol::Classic, vec![assignor]));
    let both = vec![Assignor::Range, Assignor::CooperativeSticky];
    let mut kinds = Vec::from(classic);
    kinds.push((GroupProtocol::Classic, both));
    kinds.push((GroupProtocol::Consumer, Vec::new()));
    kinds.retain(|(protocol, _)| protocols(peer).contains(protocol));
    kinds
}

fn options(group: &str, topic: &str, kind: &(GroupProtocol, Vec<Assignor>)) -> GroupOptions {
    let topics = Subscription::Topics(vec![topic.to_owned()]);
    GroupOptions {
        protocol: kind.0,
        assignors: kind.1.clone(),
        heartbeat_interval: Duration::from_millis(50),
        ..GroupOptions::new(group, topics)
    }
}

fn member(client: &Client, options: GroupOptions) -> GroupConsumer {
    let mut config = client.config().consumer.clone();
    config.auto_offset_reset = Some(AutoOffsetReset::Earliest);
    config.fetch_wait_max = Duration::from_millis(50);
    let decode = DecodeOptions { max_rows: 7, ..DecodeOptions::default() };
    client.group_consumer_with(config, options, decode).unwrap()
}

async fn fill(client: &Client, topic: &str, partitions: i32, count: i64) {
    let producer = client.producer().unwrap();
    for index in 0..count {
        for partition in 0..partitions {
            let mut record = ProducerRecord::new(topic, format!("{index}"));
            record.partition = Some(partition.into());
            drop(producer.send(record).await.unwrap());
        }
        if index % 10 == 9 {
            producer.flush().await;
        }
    }
    producer.flush().await;
}

fn rows(decoded: &Decoded) -> Vec<(i32, i64)> {
    let partitions = decoded.rows.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
    let offsets = decoded.rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
    partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect()
}

/// Polls until rows, an event, or the end come.
async fn next(consumer: &mut GroupConsumer) -> Polled {
    consumer.poll(WAIT).await.unwrap().expect("something to happen")
}

/// Reads to the pinned ends.
async fn read_out(mut consumer: GroupConsumer) -> Vec<(i32, i64)> {
    let mut found = Vec::new();
    loop {
        match next(&mut consumer).await {
            Polled::Batch(decoded) => found.extend(rows(&decoded)),
            Polled::CaughtUp => break,
            _ => {}
        }
    }
    consumer.poll(SHORT).await.unwrap();
    consumer.commit_finished().await.unwrap();
    consumer.close().await.unwrap();
    found.sort_unstable();
    found
}

async fn a_group_goes_on_where_it_stopped(peer: Peer) {
    for kind in kinds(&peer) {
        let (topic, group) = (peer.topic(2).await, unique("group"));
        fill(&peer.client, &topic, 2, 20).await;
        let until = || GroupOptions { until_caught_up: true, ..options(&group, &topic, &kind) };
        let found = read_out(member(&peer.client, until())).await;
        let expected: Vec<(i32, i64)> =
            (0..2).flat_map(|partition| (0..20).map(move |offset| (partition, offset))).collect();
        assert_eq!(found, expected, "{kind:?}");
        let found = read_out(member(&peer.client, until())).await;
        assert_eq!(found, [], "{kind:?}");
        fill(&peer.client, &topic, 1, 5).await;
        let found = read_out(member(&peer.client, until())).await;
        assert_eq!(found, (20..25).map(|offset| (0, offset)).collect::<Vec<_>>(), "{kind:?}");
    }
}

/// What the members of one group saw, taken together.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<(i32, i64), usize>,
    owners: BTreeMap<i32, usize>,
}

impl Seen {
    fn has_all(&self, partitions: i32, count: i64) -> bool {
        let has = |partition| (0..count).all(|offset| self.rows.contains_key(&(partition, offset)));
        (0..partitions).all(has)
    }

    fn shares(&self) -> Vec<usize> {
        let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
        for owner in self.owners.values() {
            *shares.entry(*owner).or_default() += 1;
        }
        shares.into_values().collect()
    }
}

/// Consumes until it is told to stop, committing before every hand-over.
async fn work(
    mut consumer: GroupConsumer,
    me: usize,
    seen: Arc<Mutex<Seen>>,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow_and_update() {
        match consumer.poll(SHORT).await.unwrap() {
            Some(Polled::Batch(decoded)) => {
                let mut seen = seen.lock().unwrap();
                for (partition, offset) in rows(&decoded) {
                    assert_eq!(seen.owners.get(&partition), Some(&me), "a row of a foreign one");
                    *seen.rows.entry((partition, offset)).or_default() += 1;
                }
            }
            Some(Polled::Assigned(partitions)) => {
                let mut seen = seen.lock().unwrap();
                for one in partitions {
                    assert_eq!(
                        seen.owners.insert(one.partition.0, me),
                        None,
                        "{one} has two owners"
                    );
                }
            }
            Some(Polled::Revoked(partitions)) => {
                consumer.commit_finished().await.unwrap();
                let mut seen = seen.lock().unwrap();
                for one in partitions {
                    assert_eq!(seen.owners.remove(&one.partition.0), Some(me));
                }
            }
            // The others hear of a rebalance with their next heartbeat only.
            Some(Polled::Waiting(_)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
    // The last poll said that everything before it is finished; now the batch of the last poll is
    // finished too.
    while let Some(polled) =
        consumer.poll(PollOptions { max_wait: Duration::ZERO, fill: false }).await.unwrap()
    {
        match polled {
            Polled::Batch(decoded) => {
                let mut seen = seen.lock().unwrap();
                for row in rows(&decoded) {
                    *seen.rows.entry(row).or_default() += 1;
                }
            }
            Polled::Revoked(_) => break,
            _ => {}
        }
    }
    consumer.commit_finished().await.unwrap();
    let owned: BTreeSet<i32> = {
        let seen = seen.lock().unwrap();
        let own = seen.owners.iter().filter(|(_, owner)| **owner == me);
        own.map(|(partition, _)| *partition).collect()
    };
    for partition in owned {
        seen.lock().unwrap().owners.remove(&partition);
    }
    consumer.close().await.unwrap();
}

async fn until(seen: &Mutex<Seen>, mut what: impl FnMut(&Seen) -> bool) {
    while !what(&seen.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn partitions_move_between_members_and_no_row_is_lost_or_doubled(peer: Peer) {
    for kind in kinds(&peer) {
        let (topic, group) = (peer.topic(6).await, unique("group"));
        fill(&peer.client, &topic, 6, 50).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let start = |me: usize| {
            let consumer = member(&peer.client, options(&group, &topic, &kind));
            let (stop, stopped) = watch::channel(false);
            (stop, tokio::spawn(work(consumer, me, Arc::clone(&seen), stopped)))
        };
        let (stop_first, first) = start(1);
        until(&seen, |seen| seen.shares() == [6]).await;
        let (stop_second, second) = start(2);
        until(&seen, |seen| seen.shares() == [3, 3]).await;
        fill(&peer.client, &topic, 6, 50).await;
        let (stop_third, third) = start(3);
        until(&seen, |seen| seen.shares() == [2, 2, 2]).await;
        stop_first.send(true).unwrap();
        first.await.unwrap();
        fill(&peer.client, &topic, 6, 50).await;
        until(&seen, |seen| seen.shares() == [3, 3]).await;
        until(&seen, |seen| seen.has_all(6, 150)).await;
        stop_second.send(true).unwrap();
        stop_third.send(true).unwrap();
        second.await.unwrap();
        third.await.unwrap();
        let seen = seen.lock().unwrap();
        let doubled: Vec<_> = seen.rows.iter().filter(|(_, count)| **count > 1).collect();
        assert_eq!(doubled, [], "{kind:?}");
        assert_eq!(seen.rows.len(), 900, "{kind:?}");
    }
}

async fn who_stays_away_too_long_loses_its_partitions_and_may_come_back(peer: Peer) {
    for protocol in protocols(&peer) {
        let (topic, group) = (peer.topic(1).await, unique("group"));
        fill(&peer.client, &topic, 1, 10).await;
        let kind = (protocol, vec![Assignor::CooperativeSticky]);
        let mut consumer = member(
            &peer.client,
            GroupOptions {
                max_poll_interval: Some(Duration::from_secs(1)),
                ..options(&group, &topic, &kind)
            },
        );
        assert!(matches!(next(&mut consumer).await, Polled::Assigned(_)));
        assert!(matches!(next(&mut consumer).await, Polled::Batch(_)));
        let commit = BTreeMap::from([(TopicPartition::new(topic.as_str(), 0), Offset(7).into())]);
        let handle = consumer.handle().clone();
        handle.commit(&commit).await.unwrap();
        while handle.metadata().generation >= 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let error = handle.commit(&commit).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::IllegalGeneration);
        let text = error.to_string();
        assert!(text.contains(&group) && text.contains(&format!("{topic}-0")), "{text}");
        assert!(text.contains("max.poll.interval.ms"), "{text}");
        let Polled::Lost { partitions, reason } = next(&mut consumer).await else {
            panic!("nothing was lost")
        };
        assert_eq!(partitions.len(), 1);
        assert!(reason.contains("max.poll.interval.ms"), "{reason}");
        assert!(matches!(next(&mut consumer).await, Polled::Assigned(_)));
        let mut found = Vec::new();
        while found.len() < 3 {
            match next(&mut consumer).await {
                Polled::Batch(decoded) => found.extend(rows(&decoded)),
                // On a busy machine it stays away again, and begins again.
                Polled::Lost { .. } | Polled::Assigned(_) => found.clear(),
                other => panic!("no rows: {other:?}"),
            }
        }
        assert_eq!(found, [(0, 7), (0, 8), (0, 9)]);
        consumer.close().await.unwrap();
    }
}

async fn what_is_finished_is_committed_by_itself(peer: Peer) {
    for protocol in protocols(&peer) {
        let (topic, group) = (peer.topic(1).await, unique("group"));
        fill(&peer.client, &topic, 1, 21).await;
        let kind = (protocol, vec![Assignor::Range]);
        let auto =
            || GroupOptions { auto_commit: Some(Duration::ZERO), ..options(&group, &topic, &kind) };
        let mut consumer = member(&peer.client, auto());
        assert!(matches!(next(&mut consumer).await, Polled::Assigned(_)));
        // How many rows come at once depends on where the producer's batches were split.
        let Polled::Batch(decoded) = next(&mut consumer).await else { panic!("no rows") };
        let first = rows(&decoded).last().map(|(_, offset)| Offset(offset + 1));
        let partition = TopicPartition::new(topic.as_str(), 0);
        // The second batch says that the first one is finished.
        let Polled::Batch(decoded) = next(&mut consumer).await else { panic!("no rows") };
        let second = rows(&decoded).last().map(|(_, offset)| Offset(offset + 1));
        let committed = async |consumer: &GroupConsumer| {
            let found = consumer.handle().committed(std::slice::from_ref(&partition)).await;
            found.unwrap().get(&partition).map(|found| found.offset)
        };
        while committed(&consumer).await != first {
            tokio::task::yield_now().await;
        }
        consumer.close().await.unwrap();
        let consumer = member(&peer.client, auto());
        assert_eq!(committed(&consumer).await, second);
        consumer.close().await.unwrap();
    }
}

async fn a_pattern_finds_the_topics_that_it_matches_whole(peer: Peer) {
    for protocol in protocols(&peer) {
        let stem = unique("pattern");
        let mut names = Vec::new();
        for suffix in ["a", "b", "ab"] {
            let topic = ottla::client::admin::NewTopic::new(format!("{stem}.{suffix}"), 1);
            names.push(peer.topic_with(topic).await);
        }
        let kind = (protocol, vec![Assignor::Range]);
        let mut consumer = member(
            &peer.client,
            GroupOptions {
                subscription: Subscription::Pattern(format!("{stem}\\.[ab]")),
                ..options(&unique("group"), "", &kind)
            },
        );
        let mut found = BTreeSet::new();
        while found.len() < 2 {
            if let Polled::Assigned(partitions) = next(&mut consumer).await {
                found.extend(partitions.into_iter().map(|one| one.topic.to_string()));
            }
        }
        assert_eq!(found, BTreeSet::from([names[0].clone(), names[1].clone()]));
        consumer.close().await.unwrap();
    }
}

async fn a_member_that_asks_for_nonsense_is_told_so(peer: Peer) {
    let topic = peer.topic(1).await;
    let kind = (GroupProtocol::Classic, vec![Assignor::Range]);
    let mut consumer = member(
        &peer.client,
        GroupOptions {
            session_timeout: Duration::from_millis(1),
            heartbeat_interval: Duration::from_micros(1),
            ..options(&unique("group"), &topic, &kind)
        },
    );
    let error = consumer.poll(WAIT).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidSessionTimeout);
    assert!(consumer.poll(SHORT).await.is_err(), "it is over");
}

async fn a_group_is_listed_described_reset_and_deleted(peer: Peer) {
    let admin = peer.client.admin();
    for protocol in protocols(&peer) {
        let (topic, group) = (peer.topic(2).await, unique("group"));
        let name = match protocol {
            GroupProtocol::Classic => "classic",
            GroupProtocol::Consumer => "consumer",
        };
        let kind = (protocol, vec![Assignor::CooperativeSticky]);
        let mut consumer = member(&peer.client, options(&group, &topic, &kind));
        // Apache Kafka's coordinator may hear of a new topic after the first member has joined.
        let mut partitions = BTreeSet::new();
        while partitions.len() < 2 {
            let Polled::Assigned(found) = next(&mut consumer).await else { panic!("no start") };
            partitions.extend(found);
        }
        consumer.poll(SHORT).await.unwrap();

        let ours = async |filter: &GroupFilter| {
            let listed = admin.list_groups(filter).await.unwrap();
            listed.into_iter().find(|listed| listed.group_id == group)
        };
        let listed = ours(&GroupFilter::default()).await.unwrap();
        assert_eq!((listed.protocol_type.as_str(), listed.group_type.as_str()), ("consumer", name));
        assert_eq!(listed.state, "Stable");
        let empty = GroupFilter { states: vec!["Empty".to_owned()], ..Default::default() };
        assert_eq!(ours(&empty).await, None);
        let typed = GroupFilter { types: vec![name.to_owned()], ..Default::default() };
        assert!(ours(&typed).await.is_some());

        let described = admin.describe_groups(&[&group]).await.unwrap().remove(0).unwrap();
        assert_eq!(described.state, "Stable");
        assert_eq!(described.group_type, name);
        assert_eq!(described.members.len(), 1);
        assert_eq!(described.members[0].assignment, partitions);
        assert_eq!(described.members[0].topics, BTreeSet::from([topic.clone()]));
        assert_eq!(described.members[0].member_id, consumer.handle().metadata().member_id);

        let [first, second] = [0, 1].map(|index| TopicPartition::new(topic.as_str(), index));
        let reset = BTreeMap::from([(first.clone(), Offset(3).into())]);
        let error = admin.alter_group_offsets(&group, &reset).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NonEmptyGroup, "{error}");
        let error = admin.delete_groups(&[&group]).await.unwrap().remove(0).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NonEmptyGroup);
        let commits = OffsetAndMetadata {
            metadata: "by hand".to_owned(),
            ..OffsetAndMetadata::from(Offset(5))
        };
        let commits = BTreeMap::from([(second.clone(), commits)]);
        consumer.handle().commit(&commits).await.unwrap();
        let refused =
            admin.delete_group_offsets(&group, std::slice::from_ref(&second)).await.unwrap();
        let error = refused[&second].as_ref().unwrap_err();
        assert_eq!(error.code(), ErrorCode::GroupSubscribedToTopic);
        consumer.close().await.unwrap();

        let results = admin.alter_group_offsets(&group, &reset).await.unwrap();
        assert!(results[&first].is_ok());
        let offsets = admin.group_offsets(&group, None).await.unwrap();
        assert_eq!(offsets[&first].offset, Offset(3));
        assert_eq!(offsets[&second], commits[&second]);
        let deleted =
            admin.delete_group_offsets(&group, std::slice::from_ref(&second)).await.unwrap();
        assert!(deleted[&second].is_ok());
        let offsets = admin.group_offsets(&group, None).await.unwrap();
        assert_eq!(offsets.keys().collect::<Vec<_>>(), [&first]);
        admin.delete_groups(&[&group]).await.unwrap().remove(0).unwrap();
        let error = admin.describe_groups(&[&group]).await.unwrap().remove(0).unwrap_err();
        assert_eq!(error.code(), ErrorCode::GroupIdNotFound);
        assert!(error.to_string().contains(&group), "{error}");
    }
}
