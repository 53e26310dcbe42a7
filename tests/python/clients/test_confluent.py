"""librdkafka, by way of confluent-kafka: produce, assign, fetch, offsets for times, admin."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def consume(bootstrap: str, topic: str, count: int, partitions: range = range(3)) -> list[Message]:
    """Read ``count`` messages of a topic from its beginning."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    messages: list[Message] = []
    deadline = time.monotonic() + 30
    while len(messages) < count and time.monotonic() < deadline:
        for message in consumer.consume(count - len(messages), 1.0):
            assert message.error() is None, message.error()
            messages.append(message)
    consumer.close()
    assert len(messages) == count
    return messages


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_what_is_produced_is_consumed(bootstrap: str, topic: str, codec: str, acks: str) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "acks": acks,
            "linger.ms": 5,
        }
    )
    for number in range(1000):
        producer.produce(topic, f"value {number} " + "x" * 100, f"key {number}", partition=0)
    assert producer.flush(30) == 0
    messages = consume(bootstrap, topic, 1000, range(1))
    assert [message.value() for message in messages] == [
        f"value {number} {'x' * 100}".encode() for number in range(1000)
    ]
    assert [message.offset() for message in messages] == list(range(1000))


def test_null_keys_null_values_and_duplicate_headers_come_back(bootstrap: str, topic: str) -> None:
    headers = [("a", b"1"), ("a", b"2"), ("b", None), ("", b"")]
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    producer.produce(topic, None, None, partition=1, headers=headers, timestamp=1234)
    producer.produce(topic, b"", b"", partition=1)
    assert producer.flush(30) == 0
    first, second = consume(bootstrap, topic, 2, range(1, 2))
    assert (first.key(), first.value()) == (None, None)
    assert first.headers() == headers
    assert first.timestamp() == (1, 1234)
    assert (second.key(), second.value()) == (b"", b"")


def test_an_idempotent_producer_gets_offsets_in_order(bootstrap: str, topic: str) -> None:
    offsets: list[int] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        offsets.append(message.offset())

    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "batch.num.messages": 7}
    )
    for number in range(500):
        producer.produce(topic, str(number), partition=2, on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert offsets == list(range(500))


def test_offsets_for_times_are_per_record(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50})
    for number in range(10):
        producer.produce(topic, str(number), partition=0, timestamp=1000 + number * 10)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})

    def offset_at(time_ms: int) -> int:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, time_ms)], 30)
        return int(found.offset)

    assert offset_at(0) == 0
    assert offset_at(1045) == 5
    assert offset_at(1050) == 5
    past_the_end = offset_at(5000)
    assert past_the_end == -1
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), 30) == (0, 10)
    consumer.close()


def test_a_fetch_from_the_middle_of_a_batch_starts_at_the_offset(
    bootstrap: str, topic: str
) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 100, "compression.type": "lz4"}
    )
    for number in range(100):
        producer.produce(topic, str(number), partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    consumer.assign([TopicPartition(topic, 0, 57)])
    message = consumer.poll(30)
    assert message is not None
    assert (message.offset(), message.value()) == (57, b"57")
    consumer.close()


def test_an_offset_out_of_range_is_reset_or_reported(bootstrap: str, topic: str) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(topic, 0, 1_000)])
    message = consumer.poll(30)
    assert message is not None
    assert message.error() is not None
    assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()


def test_admin_creates_describes_alters_and_deletes(bootstrap: str, topic_name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic_name, 2, 1, config={"retention.ms": "3600000"})
    admin.create_topics([new], operation_timeout=30)[topic_name].result(30)
    with pytest.raises(KafkaException) as caught:
        admin.create_topics([new], operation_timeout=30)[topic_name].result(30)
    assert caught.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS

    assert len(admin.list_topics(topic_name, 30).topics[topic_name].partitions) == 2
    grown = admin.create_partitions([NewPartitions(topic_name, 5)], operation_timeout=30)
    grown[topic_name].result(30)
    assert len(admin.list_topics(topic_name, 30).topics[topic_name].partitions) == 5

    resource = ConfigResource(ResourceType.TOPIC, topic_name)
    entries = admin.describe_configs([resource])[resource].result(30)
    assert entries["retention.ms"].value == "3600000"
    assert not entries["retention.ms"].is_default
    assert entries["segment.bytes"].is_default
    change = ConfigResource(
        ResourceType.TOPIC,
        topic_name,
        incremental_configs=[
            ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET),
            ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE),
        ],
    )
    admin.incremental_alter_configs([change])[change].result(30)
    entries = admin.describe_configs([resource])[resource].result(30)
    assert entries["max.message.bytes"].value == "2000"
    assert entries["retention.ms"].is_default

    bad = ConfigResource(
        ResourceType.TOPIC,
        topic_name,
        incremental_configs=[
            ConfigEntry("no.such.key", "1", incremental_operation=AlterConfigOpType.SET)
        ],
    )
    with pytest.raises(KafkaException) as caught:
        admin.incremental_alter_configs([bad])[bad].result(30)
    assert caught.value.args[0].code() == KafkaError.INVALID_CONFIG

    admin.delete_topics([topic_name], operation_timeout=30)[topic_name].result(30)
    assert topic_name not in admin.list_topics(timeout=30).topics


def test_a_message_above_the_limit_of_the_topic_is_refused(bootstrap: str, topic_name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic_name, 1, 1, config={"max.message.bytes": "1000"})
    admin.create_topics([new], operation_timeout=30)[topic_name].result(30)
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic_name, b"x" * 5000, on_delivery=lambda error, _: errors.append(error))
    producer.produce(topic_name, b"x", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    codes = [None if error is None else error.code() for error in errors]
    assert KafkaError.MSG_SIZE_TOO_LARGE in codes


def test_admin_lists_and_deletes_records(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(20):
        producer.produce(topic, str(number), partition=0, timestamp=1000 + (number * 7) % 20)
    assert producer.flush(30) == 0
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partition = TopicPartition(topic, 0)

    def offset(spec: OffsetSpec) -> int:
        return int(admin.list_offsets({partition: spec})[partition].result(30).offset)

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 20
    assert offset(OffsetSpec.max_timestamp()) == 17
    deleted = admin.delete_records([TopicPartition(topic, 0, 8)])
    assert next(iter(deleted.values())).result(30).low_watermark == 8
    assert offset(OffsetSpec.earliest()) == 8
    message = consume_one(bootstrap, topic)
    assert message.offset() == 8


def test_records_are_deleted_up_to_what_was_acknowledged(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": 1, "linger.ms": 0})
    admin = AdminClient({"bootstrap.servers": bootstrap})
    offsets: list[int] = []
    for number in range(30):
        producer.produce(
            topic,
            str(number),
            partition=0,
            on_delivery=lambda _, message: offsets.append(message.offset()),
        )
        assert producer.flush(30) == 0
        end = offsets[-1] + 1
        deleted = admin.delete_records([TopicPartition(topic, 0, end)])
        assert next(iter(deleted.values())).result(30).low_watermark == end
    assert offsets == list(range(30))


def consume_one(bootstrap: str, topic: str) -> Message:
    """Read the first message that is still in partition 0."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "none", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(30)
    assert message is not None
    assert message.error() is None
    consumer.close()
    return message


def test_the_cluster_is_described(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    cluster = admin.describe_cluster().result(30)
    assert cluster.controller is not None
    assert cluster.cluster_id
    assert [node.id for node in cluster.nodes] == [cluster.controller.id]


def test_a_topic_appears_by_producing_to_it(bootstrap: str, topic_name: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic_name, b"first")
    assert producer.flush(30) == 0
    assert consume(bootstrap, topic_name, 1, range(1))[0].value() == b"first"
