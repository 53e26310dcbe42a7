//! Scans and assigned consumers.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::client::admin::NewTopic;
use ottla::client::producer::{Producer, ProducerRecord};
use ottla::client::{Bound, PollOptions, Scan, ScanOptions, StartAt};
use ottla::columnar::DecodeOptions;
use ottla::error::Error;
use ottla::types::{Offset, TimestampMs, TopicPartition};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use crate::peers::Peer;

against_both!(
    peers:
    a_scan_gives_exactly_the_rows_of_its_bounds,
    a_scan_is_the_same_rows_while_the_topic_grows,
    deleted_records_are_an_error_and_not_a_shorter_result,
    a_topic_made_anew_is_not_taken_for_the_old_one,
    an_assigned_consumer_polls_seeks_and_pauses,
);

const FIRST: i64 = 1_700_000_000_000;

/// Writes records `0..count` to a partition, a second apart, in batches of ten.
async fn fill(producer: &Producer, topic: &str, partition: i32, count: i64) {
    for index in 0..count {
        let mut record = ProducerRecord::new(topic, format!("{index}"));
        record.partition = Some(partition.into());
        record.timestamp = Some(TimestampMs(FIRST + index * 1_000));
        drop(producer.send(record).await.unwrap());
        if index % 10 == 9 {
            producer.flush().await;
        }
    }
    producer.flush().await;
}

async fn offsets_of(scan: &Scan) -> Vec<i64> {
    let mut reader = scan.read().unwrap();
    let mut offsets = Vec::new();
    while let Some(decoded) = reader.next().await.unwrap() {
        let column = decoded.rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
        offsets.extend(column.values());
    }
    offsets
}

fn bounds(start: &str, end: &str) -> ScanOptions {
    ScanOptions {
        start: Bound::parse(start).unwrap(),
        end: Bound::parse(end).unwrap(),
        ..ScanOptions::default()
    }
}

async fn a_scan_gives_exactly_the_rows_of_its_bounds(peer: Peer) {
    let name = peer.topic(1).await;
    let producer = peer.client.producer().unwrap();
    fill(&producer, &name, 0, 50).await;
    let rows = async |start: &str, end: &str| {
        let scan = peer.client.scan(&name, bounds(start, end)).await.unwrap();
        offsets_of(&scan).await
    };
    assert_eq!(rows("earliest", "latest").await, (0..50).collect::<Vec<_>>());
    assert_eq!(rows("7", "23").await, (7..23).collect::<Vec<_>>());
    assert_eq!(rows("last:3", "latest").await, [47, 48, 49]);
    // 1700000000 is 2023-11-14T22:13:20Z.
    assert_eq!(rows("2023-11-14T22:13:23Z", "2023-11-14T22:13:25.500Z").await, [3, 4, 5]);
    assert_eq!(rows("-1h", "latest").await, [0; 0], "nothing is that young");
    assert_eq!(rows("5", "5").await, [0; 0]);
    assert_eq!(rows("30", "20").await, [0; 0]);
    for (start, end) in [("51", "latest"), ("earliest", "51")] {
        let error = peer.client.scan(&name, bounds(start, end)).await.unwrap_err();
        assert!(matches!(error, Error::DataLoss { .. }), "{error}");
    }
    let error = peer.client.scan("no-such-topic", ScanOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("no-such-topic"), "{error}");
}

async fn a_scan_is_the_same_rows_while_the_topic_grows(peer: Peer) {
    let name = peer.topic(3).await;
    let producer = peer.client.producer().unwrap();
    for partition in 0..3 {
        fill(&producer, &name, partition, 20).await;
    }
    let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
    fill(&producer, &name, 1, 20).await;
    assert_eq!(offsets_of(&scan).await.len(), 60);
    assert_eq!(offsets_of(&scan).await.len(), 60);
    let json = serde_json::to_string(scan.offsets()).unwrap();
    let kept = serde_json::from_str(&json).unwrap();
    let again = peer.client.scan_again(&kept, ScanOptions::default()).await.unwrap();
    assert_eq!(again.offsets(), scan.offsets());
    assert_eq!(offsets_of(&again).await.len(), 60);
    let news = ScanOptions { start: scan.offsets().checkpoint(), ..ScanOptions::default() };
    let news = peer.client.scan(&name, news).await.unwrap();
    assert_eq!(offsets_of(&news).await, (20..40).collect::<Vec<_>>());
}

async fn deleted_records_are_an_error_and_not_a_shorter_result(peer: Peer) {
    let name = peer.topic(1).await;
    let producer = peer.client.producer().unwrap();
    fill(&producer, &name, 0, 30).await;
    let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
    let partition = TopicPartition::new(name.as_str(), 0);
    let before = BTreeMap::from([(partition, Offset(12))]);
    peer.client.admin().delete_records(&before).await.unwrap();
    let error = scan.read().unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::DataLoss { .. }), "{error}");
    assert!(error.to_string().contains("from offset 0 to 12"), "{error}");
    let tolerant = ScanOptions {
        on_data_loss: Some(ottla::client::OnDataLoss::Warn),
        ..bounds("0", "latest")
    };
    let tolerant = peer.client.scan(&name, tolerant).await.unwrap();
    assert_eq!(offsets_of(&tolerant).await, (12..30).collect::<Vec<_>>());
}

async fn a_topic_made_anew_is_not_taken_for_the_old_one(peer: Peer) {
    let name = peer.topic(1).await;
    let producer = peer.client.producer().unwrap();
    fill(&producer, &name, 0, 10).await;
    let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
    peer.client.admin().delete_topics(&[&name]).await.unwrap().remove(0).unwrap();
    // A broker deletes in the background; the name is free soon after.
    loop {
        let created =
            peer.client.admin().create_topics(&[NewTopic::new(&name, 1)], false).await.unwrap();
        if created[0].is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let producer = peer.client.producer().unwrap();
    fill(&producer, &name, 0, 10).await;
    let error = scan.read().unwrap().next().await.unwrap_err();
    assert!(matches!(error, Error::DataLoss { .. }), "{error}");
    assert!(error.to_string().contains("re-created"), "{error}");
    let error = peer.client.scan_again(scan.offsets(), ScanOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("re-created"), "{error}");
}

async fn an_assigned_consumer_polls_seeks_and_pauses(peer: Peer) {
    let name = peer.topic(2).await;
    let producer = peer.client.producer().unwrap();
    fill(&producer, &name, 0, 20).await;
    fill(&producer, &name, 1, 20).await;
    let decode = DecodeOptions { max_rows: 5, ..DecodeOptions::default() };
    let mut consumer = peer.client.consumer(decode).unwrap();
    let [first, second] = [0, 1].map(|index| TopicPartition::new(name.as_str(), index));
    let wait = PollOptions { max_wait: Duration::from_secs(10), fill: false };
    let starts = [(first.clone(), StartAt::Earliest), (second.clone(), StartAt::Latest)];
    consumer.assign(&starts).await.unwrap();
    assert_eq!(consumer.position(&second).await.unwrap(), Offset(20));
    let polled = consumer.poll(wait).await.unwrap().unwrap();
    assert_eq!(polled.rows.num_rows(), 5);
    assert_eq!(consumer.position(&first).await.unwrap(), Offset(5));

    consumer.seek(&first, StartAt::Offset(Offset(18))).unwrap();
    let polled = consumer.poll(wait).await.unwrap().unwrap();
    assert_eq!(polled.rows.num_rows(), 2);
    consumer.seek(&first, StartAt::Timestamp(TimestampMs(FIRST + 16_500))).unwrap();
    assert_eq!(consumer.position(&first).await.unwrap(), Offset(17));

    consumer.pause(&first).unwrap();
    consumer.seek(&second, StartAt::Offset(Offset(19))).unwrap();
    let polled = consumer.poll(wait).await.unwrap().unwrap();
    assert_eq!(polled.progress[0].partition, second);
    assert_eq!(consumer.paused(), std::slice::from_ref(&first));
    let none = PollOptions { max_wait: Duration::from_millis(50), fill: false };
    assert!(consumer.poll(none).await.unwrap().is_none());
    consumer.resume(&first).unwrap();
    assert_eq!(consumer.poll(wait).await.unwrap().unwrap().rows.num_rows(), 3);

    // Whatever arrives later is handed out when it arrives.
    fill(&producer, &name, 1, 1).await;
    assert_eq!(consumer.poll(wait).await.unwrap().unwrap().rows.num_rows(), 1);
    assert_eq!(consumer.end_offsets().await.unwrap()[&second], Offset(21));

    consumer.seek(&first, StartAt::Offset(Offset(500))).unwrap();
    let error = consumer.poll(wait).await.unwrap_err();
    assert!(matches!(error, Error::DataLoss { .. }), "{error}");
    let stranger = TopicPartition::new("stranger", 0);
    assert!(consumer.seek(&stranger, StartAt::Earliest).is_err());
}
