"""kafka-python: produce, assign, fetch, offsets for times, admin."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_what_is_produced_is_consumed(bootstrap: str, topic: str, codec: str | None) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=5
    )
    futures = [
        producer.send(topic, b"value %d" % number, b"key", [("h", b"v")], partition=0)
        for number in range(300)
    ]
    assert [future.get(30).offset for future in futures] == list(range(300))
    producer.close()

    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    records: list[Any] = []
    while len(records) < 300:
        polled = consumer.poll(timeout_ms=10_000)
        assert polled, "nothing came for ten seconds"
        records.extend(polled[partition])
    assert [record.value for record in records] == [b"value %d" % number for number in range(300)]
    assert list(records[0].headers) == [("h", b"v")]
    consumer.seek(partition, 123)
    assert consumer.poll(timeout_ms=10_000)[partition][0].offset == 123
    consumer.close()


def test_offsets_by_time_and_at_both_ends(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=50)
    for number in range(10):
        producer.send(topic, b"x", partition=1, timestamp_ms=1000 + number)
    producer.flush(30)
    producer.close()
    partition = TopicPartition(topic, 1)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 10}
    found = consumer.offsets_for_times({partition: 1004})[partition]
    assert found is not None
    assert (found.offset, found.timestamp) == (4, 1004)
    assert consumer.offsets_for_times({partition: 9999})[partition] is None
    assert consumer.partitions_for_topic(topic) == {0, 1, 2}
    consumer.close()
