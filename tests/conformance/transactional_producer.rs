//! Our transactional producer, with both versions of transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use ottla::client::admin::NewTopic;
use ottla::client::producer::ProducerRecord;
use ottla::client::{
    AutoOffsetReset, Client, GroupConsumer, GroupMetadata, GroupOptions, IsolationLevel,
    OffsetAndMetadata, PollOptions, Polled, ProducerConfig, ScanOptions, Subscription,
    TransactionalProducer, write,
};
use ottla::columnar::{DecodeOptions, WriteOptions};
use ottla::error::ErrorCode;
use ottla::types::{Offset, TopicPartition};

use crate::peers::{Peer, unique};

/// Declares the tests of each case: with Kafka as it is, and as it was before 4.0.
macro_rules! against_both_versions {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            #[ignore = "needs Java and Apache Kafka's jars"]
            fn apache_kafka() {
                crate::peers::against_kafka(stringify!($name), super::$name);
            }

            #[test]
            #[ignore = "needs Java and Apache Kafka's jars"]
            fn apache_kafka_before_4() {
                crate::peers::against_old_transactions(stringify!($name), super::$name);
            }
        }
    )*};
}

against_both_versions!(
    a_transaction_is_visible_whole_or_not_at_all,
    many_transactions_follow_each_other,
    a_second_producer_with_the_same_id_fences_the_first,
    a_failed_batch_leaves_only_the_abort,
    offsets_move_with_the_transaction,
    a_transaction_that_takes_too_long_is_not_committed,
    what_is_out_of_place_is_refused,
);

fn is_old(peer: &Peer) -> bool {
    peer.name.contains("transaction.version=1")
}

fn transactional(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional(id, &client.config().producer).unwrap()
}

async fn send(producer: &TransactionalProducer, topic: &str, partition: i32, value: &str) {
    let mut record = ProducerRecord::new(topic, value.to_owned());
    record.partition = Some(partition.into());
    drop(producer.producer().send(record).await.unwrap());
}

/// The values of a topic, sorted.
async fn values(client: &Client, topic: &str, isolation_level: IsolationLevel) -> Vec<String> {
    let options = ScanOptions { isolation_level: Some(isolation_level), ..ScanOptions::default() };
    let mut reader = client.scan(topic, options).await.unwrap().read().unwrap();
    let mut values = Vec::new();
    while let Some(decoded) = reader.next().await.unwrap() {
        let column = decoded.rows.column_by_name("value").unwrap().as_binary_view().clone();
        values.extend(
            column.iter().map(|value| String::from_utf8_lossy(value.unwrap()).into_owned()),
        );
    }
    values.sort();
    values
}

async fn committed(client: &Client, topic: &str) -> Vec<String> {
    values(client, topic, IsolationLevel::ReadCommitted).await
}

/// Waits until a topic has these values for who reads what is committed: markers are written after the answer.
async fn becomes(client: &Client, topic: &str, expected: &[&str]) {
    for _ in 0..2_000 {
        if committed(client, topic).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(committed(client, topic).await, expected);
}

async fn a_transaction_is_visible_whole_or_not_at_all(peer: Peer) {
    let topic = peer.topic(2).await;
    let producer = transactional(&peer.client, &unique("whole"));
    producer.begin().await.unwrap();
    for (partition, value) in [(0, "a"), (1, "b"), (0, "c")] {
        send(&producer, &topic, partition, value).await;
    }
    producer.producer().flush().await;
    let all = values(&peer.client, &topic, IsolationLevel::ReadUncommitted).await;
    assert_eq!(all, ["a", "b", "c"], "{}", peer.name);
    assert!(committed(&peer.client, &topic).await.is_empty(), "{}", peer.name);
    producer.commit().await.unwrap();
    becomes(&peer.client, &topic, &["a", "b", "c"]).await;

    producer.begin().await.unwrap();
    send(&producer, &topic, 0, "never").await;
    producer.producer().flush().await;
    // This one has not been sent yet.
    send(&producer, &topic, 1, "never").await;
    producer.abort().await.unwrap();
    assert!(!producer.is_open());
    // Nothing was open any more.
    producer.abort().await.unwrap();

    // A whole table, with batches that columns became.
    producer.begin().await.unwrap();
    let rows = peer.client.scan(&topic, ScanOptions::default()).await.unwrap();
    let rows = rows.read().unwrap().next().await.unwrap().unwrap().rows;
    let rows = rows.project(&[rows.schema().index_of("value").unwrap()]).unwrap();
    let count = rows.num_rows();
    let table = [Ok(rows)];
    let options = WriteOptions::default();
    let report = write(std::sync::Arc::clone(producer.producer()), &topic, table, options).await;
    assert_eq!(report.unwrap().rows, count as u64);
    producer.commit().await.unwrap();
    for _ in 0..2_000 {
        if committed(&peer.client, &topic).await.len() > 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(committed(&peer.client, &topic).await.iter().all(|value| value != "never"));
    producer.close(Duration::from_secs(10)).await.unwrap();
}

async fn many_transactions_follow_each_other(peer: Peer) {
    let topic = peer.topic(3).await;
    let producer = transactional(&peer.client, &unique("many"));
    let mut expected = Vec::new();
    for number in 0..60 {
        producer.begin().await.unwrap();
        for partition in 0..3 {
            for index in 0..4 {
                let value = format!("{number:03} {partition} {index}");
                send(&producer, &topic, partition, &value).await;
                if number % 3 != 2 {
                    expected.push(value);
                }
            }
            if number % 4 == 0 {
                producer.producer().flush().await;
            }
        }
        if number % 3 == 2 {
            producer.abort().await.unwrap();
        } else {
            producer.commit().await.unwrap();
        }
    }
    expected.sort();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    becomes(&peer.client, &topic, &expected).await;
}

async fn a_second_producer_with_the_same_id_fences_the_first(peer: Peer) {
    let topic = peer.topic(1).await;
    let id = unique("fenced");
    let first = transactional(&peer.client, &id);
    first.begin().await.unwrap();
    send(&first, &topic, 0, "first").await;
    first.producer().flush().await;
    let second = transactional(&peer.client, &id);
    second.begin().await.unwrap();
    send(&second, &topic, 0, "second").await;
    second.commit().await.unwrap();
    let error = first.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ProducerFenced, "{}", error.chain());
    assert!(error.to_string().contains("took over"), "{error}");
    for again in [first.begin().await, first.commit().await, first.abort().await] {
        assert_eq!(again.unwrap_err().code(), ErrorCode::ProducerFenced);
    }
    becomes(&peer.client, &topic, &["second"]).await;
    second.begin().await.unwrap();
    send(&second, &topic, 0, "third").await;
    second.commit().await.unwrap();
    becomes(&peer.client, &topic, &["second", "third"]).await;
}

async fn a_failed_batch_leaves_only_the_abort(peer: Peer) {
    let small = NewTopic::new(unique("small"), 1).config("max.message.bytes", "1000");
    let small = peer.topic_with(small).await;
    let topic = peer.topic(1).await;
    let producer = transactional(&peer.client, &unique("failed"));
    producer.begin().await.unwrap();
    send(&producer, &topic, 0, "never").await;
    let record = ProducerRecord::new(small.as_str(), vec![7; 5_000]);
    let error = producer.producer().send_and_wait(record).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    let error = producer.commit().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TransactionAbortable, "{}", error.chain());
    assert!(error.chain().contains("max.message.bytes"), "{}", error.chain());
    let refused = producer.producer().send(ProducerRecord::new(topic.as_str(), "x")).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::TransactionAbortable);
    assert_eq!(producer.begin().await.unwrap_err().code(), ErrorCode::TransactionAbortable);
    producer.abort().await.unwrap();
    producer.begin().await.unwrap();
    send(&producer, &small, 0, "small").await;
    send(&producer, &topic, 0, "after").await;
    producer.commit().await.unwrap();
    becomes(&peer.client, &topic, &["after"]).await;
    becomes(&peer.client, &small, &["small"]).await;
    producer.close(Duration::from_secs(10)).await.unwrap();
}

const WAIT: PollOptions = PollOptions { max_wait: Duration::from_secs(20), fill: false };

async fn read(member: &mut GroupConsumer) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
    loop {
        match member.poll(WAIT).await.unwrap() {
            Some(Polled::Batch(decoded)) if decoded.rows.num_rows() > 0 => break,
            Some(_) => {}
            None => panic!("no rows came"),
        }
    }
    let mut offsets = BTreeMap::new();
    for partition in member.assignment() {
        let offset = member.position(&partition).await.unwrap();
        offsets.insert(partition, OffsetAndMetadata::from(offset));
    }
    offsets
}

async fn offsets_move_with_the_transaction(peer: Peer) {
    let (source, target) = (peer.topic(1).await, peer.topic(1).await);
    let plain = peer.client.producer().unwrap();
    for value in ["a", "b", "c"] {
        plain.send_and_wait(ProducerRecord::new(source.as_str(), value)).await.unwrap();
    }
    let group = unique("group");
    let topics = Subscription::Topics(vec![source.clone()]);
    let mut config = peer.client.config().consumer.clone();
    config.auto_offset_reset = Some(AutoOffsetReset::Earliest);
    config.isolation_level = IsolationLevel::ReadCommitted;
    let options = GroupOptions::new(group.as_str(), topics);
    let decode = DecodeOptions::default();
    let mut member = peer.client.group_consumer_with(config, options, decode).unwrap();
    let offsets = read(&mut member).await;
    assert_eq!(offsets.values().next().unwrap().offset, Offset(3));
    let handle = member.handle();
    let partition = TopicPartition::new(source.as_str(), 0);
    let known = async || {
        let known = handle.committed(std::slice::from_ref(&partition)).await.unwrap();
        known.get(&partition).map(|known| known.offset)
    };

    let producer = transactional(&peer.client, &unique("offsets"));
    producer.begin().await.unwrap();
    send(&producer, &target, 0, "aborted").await;
    producer.send_offsets(offsets.clone(), handle.metadata()).await.unwrap();
    producer.abort().await.unwrap();
    // This waits for what is pending.
    assert_eq!(known().await, None, "{}", peer.name);

    producer.begin().await.unwrap();
    let other = GroupMetadata { member_id: "somebody else".into(), ..handle.metadata() };
    let error = producer.send_offsets(offsets.clone(), other).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::TransactionAbortable, "{}", error.chain());
    assert!(error.chain().contains("UNKNOWN_MEMBER_ID"), "{}", error.chain());
    producer.abort().await.unwrap();

    producer.begin().await.unwrap();
    send(&producer, &target, 0, "done").await;
    producer.send_offsets(offsets, handle.metadata()).await.unwrap();
    producer.commit().await.unwrap();
    assert_eq!(known().await, Some(Offset(3)), "{}", peer.name);
    becomes(&peer.client, &target, &["done"]).await;
    member.close().await.unwrap();
}

async fn a_transaction_that_takes_too_long_is_not_committed(peer: Peer) {
    let topic = peer.topic(1).await;
    let timeout = Duration::from_secs(1);
    let config =
        ProducerConfig { transaction_timeout: timeout, ..peer.client.config().producer.clone() };
    let producer = peer.client.transactional(&unique("slow"), &config).unwrap();
    producer.begin().await.unwrap();
    send(&producer, &topic, 0, "late").await;
    producer.producer().flush().await;
    // What is after it can be read once its coordinator has aborted it.
    let plain = peer.client.producer().unwrap();
    plain.send_and_wait(ProducerRecord::new(topic.as_str(), "other")).await.unwrap();
    becomes(&peer.client, &topic, &["other"]).await;
    let error = producer.commit().await.unwrap_err();
    if is_old(&peer) {
        assert_eq!(error.code(), ErrorCode::ProducerFenced, "{}", error.chain());
        assert!(error.to_string().contains("1000 ms"), "{error}");
        return;
    }
    assert_eq!(error.code(), ErrorCode::TransactionAbortable, "{}", error.chain());
    assert!(error.to_string().contains("longer than its timeout"), "{error}");
    producer.abort().await.unwrap();
    producer.begin().await.unwrap();
    send(&producer, &topic, 0, "in time").await;
    producer.commit().await.unwrap();
    becomes(&peer.client, &topic, &["in time", "other"]).await;
}

async fn what_is_out_of_place_is_refused(peer: Peer) {
    let topic = peer.topic(1).await;
    let producer = transactional(&peer.client, &unique("place"));
    let record = ProducerRecord::new(topic.as_str(), "x");
    let error = producer.producer().send(record).await.unwrap_err();
    assert!(error.to_string().contains("no transaction is open"), "{error}");
    assert!(producer.commit().await.unwrap_err().to_string().contains("no transaction is open"));
    producer.begin().await.unwrap();
    assert!(producer.begin().await.unwrap_err().to_string().contains("commit or abort it first"));
    producer.commit().await.unwrap();

    let endless = Duration::from_secs(100 * 24 * 3600 / 10);
    let config =
        ProducerConfig { transaction_timeout: endless, ..peer.client.config().producer.clone() };
    let producer = peer.client.transactional(&unique("endless"), &config).unwrap();
    let error = producer.begin().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidTransactionTimeout);
    assert!(error.to_string().contains("transaction.max.timeout.ms"), "{error}");

    let config = ProducerConfig { idempotence: Some(false), ..config };
    assert!(peer.client.transactional("x", &config).is_err());
    assert!(peer.client.transactional("", &ProducerConfig::default()).is_err());
}
