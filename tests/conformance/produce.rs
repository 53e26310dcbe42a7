//! Producing records and tables.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use ottla::client::{Acks, ProducerConfig, ProducerRecord, ScanOptions, write};
use ottla::columnar::WriteOptions;
use ottla::error::ErrorCode;
use ottla::record::Compression;
use ottla::types::{Offset, TopicPartition};

use crate::peers::Peer;

against_both!(
    peers:
    records_get_consecutive_offsets_with_every_codec,
    a_key_goes_where_the_java_client_puts_it,
    acks_decide_what_is_known_of_a_record,
    a_record_that_is_too_large_is_refused_with_the_remedy,
    a_table_is_written_and_read_back,
);

async fn records_get_consecutive_offsets_with_every_codec(peer: Peer) {
    for compression in Compression::ALL {
        let name = peer.topic(1).await;
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        let producer = peer.client.producer_with(config).unwrap();
        let mut deliveries = Vec::new();
        for index in 0..1_000 {
            let mut record = ProducerRecord::new(name.as_str(), format!("value {index}"));
            record.key = (index % 3 != 0).then(|| format!("key {index}").into());
            record.value = record.value.filter(|_| index % 7 != 0);
            record.headers = vec![("h".to_owned(), Some("1".into())), ("h".to_owned(), None)];
            deliveries.push(producer.send(record).await.unwrap());
        }
        for (index, delivery) in deliveries.into_iter().enumerate() {
            let metadata = delivery.wait().await.unwrap();
            assert_eq!(metadata.offset, Offset(i64::try_from(index).unwrap()));
        }
        producer.close(Duration::from_secs(10)).await.unwrap();
        let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
        let mut reader = scan.read().unwrap();
        let rows = reader.next().await.unwrap().unwrap().rows;
        assert_eq!(rows.num_rows(), 1_000, "{compression:?} with {}", peer.name);
        assert_eq!(rows.column_by_name("key").unwrap().null_count(), 334);
        assert_eq!(rows.column_by_name("value").unwrap().null_count(), 143);
    }
}

async fn a_key_goes_where_the_java_client_puts_it(peer: Peer) {
    let name = peer.topic(10).await;
    let producer = peer.client.producer().unwrap();
    let record = ProducerRecord::new(name.as_str(), "x").key("foobar");
    let metadata = producer.send_and_wait(record).await.unwrap();
    // murmur2("foobar") = -790332482
    assert_eq!(metadata.partition, TopicPartition::new(name.as_str(), 6));
    let mut record = ProducerRecord::new(name.as_str(), "x");
    record.partition = Some(10.into());
    let error = producer.send(record).await.unwrap_err();
    assert!(error.to_string().contains("it has 10, numbered from 0"), "{error}");
}

async fn acks_decide_what_is_known_of_a_record(peer: Peer) {
    for (acks, offset) in
        [(Acks::None, Offset::UNKNOWN), (Acks::Leader, Offset(1)), (Acks::All, Offset(2))]
    {
        static NAME: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);
        if acks == Acks::None {
            let name = peer.topic(1).await;
            *NAME.lock().unwrap() = Some(name);
        }
        let name = NAME.lock().unwrap().clone().unwrap();
        let config = ProducerConfig { acks, ..ProducerConfig::default() };
        let producer = peer.client.producer_with(config).unwrap();
        let record = ProducerRecord::new(name.as_str(), "x");
        let metadata = producer.send_and_wait(record).await.unwrap();
        assert_eq!(metadata.offset, offset, "{acks:?} with {}", peer.name);
        // What came over another connection is ahead once it is visible.
        let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
        assert!(scan.offsets().count() <= 3);
    }
}

async fn a_record_that_is_too_large_is_refused_with_the_remedy(peer: Peer) {
    let topic = ottla::client::admin::NewTopic::new(crate::peers::unique("small"), 1)
        .config("max.message.bytes", "1000");
    let name = peer.topic_with(topic).await;
    let producer = peer.client.producer().unwrap();
    let record = ProducerRecord::new(name.as_str(), vec![7; 5_000]);
    let error = producer.send_and_wait(record).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    // The producer continues, under a new epoch.
    let record = ProducerRecord::new(name.as_str(), "small");
    assert_eq!(producer.send_and_wait(record).await.unwrap().offset, Offset(0));
    let record = ProducerRecord::new(name.as_str(), vec![7; 50_000_000]);
    assert_eq!(producer.send(record).await.unwrap_err().code(), ErrorCode::MessageTooLarge);
}

async fn a_table_is_written_and_read_back(peer: Peer) {
    let name = peer.topic(4).await;
    let rows = 100_000_i64;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let names: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("name {row}"))));
    let table = RecordBatch::try_from_iter([("number", numbers), ("name", names)]).unwrap();
    let producer = Arc::new(peer.client.producer().unwrap());
    let options = WriteOptions { key: Some("name".to_owned()), ..WriteOptions::default() };
    let report = write(Arc::clone(&producer), &name, [Ok(table)], options).await.unwrap();
    assert_eq!(report.rows, 100_000);
    assert_eq!(report.offsets.len(), 4);
    let total: i64 = report.offsets.values().map(|range| range.end.since(range.start)).sum();
    assert_eq!(total, rows);

    let scan = peer.client.scan(&name, ScanOptions::default()).await.unwrap();
    assert_eq!(scan.offsets().count(), rows);
    for _ in 0..2 {
        let mut reader = scan.read().unwrap();
        let mut seen = 0;
        while let Some(decoded) = reader.next().await.unwrap() {
            assert!(decoded.rows.num_rows() <= 10_000);
            seen += decoded.rows.num_rows();
        }
        assert_eq!(seen, 100_000, "with {}", peer.name);
        let progress = reader.progress();
        assert_eq!(progress.offsets_done, progress.offsets_total);
    }
}
