"""Transactions: librdkafka by way of confluent-kafka, Apache Kafka's Java client and its tools."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from processes import JavaTools

PATIENCE = 60.0
"""Seconds."""


def create(bootstrap: str, topic: str, partitions: int = 1) -> str:
    """Create a topic and return its name."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=30)[topic].result(30)
    return topic


def transactional(bootstrap: str, name: str, **settings: object) -> Producer:
    """Return a producer whose transactions can begin."""
    names = {key.replace("_", "."): value for key, value in settings.items()}
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": 30_000,
            **names,
        }
    )
    producer.init_transactions(PATIENCE)
    return producer


def write(producer: Producer, topic: str, values: Iterable[object], partition: int = 0) -> None:
    """Send values, and wait until the log has them."""

    def delivered(error: KafkaError | None, _message: Message) -> None:
        assert error is None, error

    for value in values:
        producer.produce(topic, str(value), partition=partition, on_delivery=delivered)
    assert producer.flush(PATIENCE) == 0


def read(
    bootstrap: str, topic: str, isolation: str = "read_committed", partitions: int = 1
) -> list[str]:
    """Read all that there is, up to the end that readers of this kind may see."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    values: list[str] = []
    ended: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while len(ended) < partitions:
        assert time.monotonic() < deadline, (values, ended)
        message = consumer.poll(1.0)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition())
            continue
        values.append(message.value().decode())
    consumer.close()
    return values


def test_what_is_committed_is_seen_and_what_is_aborted_is_not(
    bootstrap: str, topic_name: str
) -> None:
    topic = create(bootstrap, topic_name)
    producer = transactional(bootstrap, topic_name)
    producer.begin_transaction()
    write(producer, topic, ["a", "b"])
    assert read(bootstrap, topic) == []
    assert read(bootstrap, topic, "read_uncommitted") == ["a", "b"]
    producer.commit_transaction(PATIENCE)
    producer.begin_transaction()
    write(producer, topic, ["c"])
    producer.abort_transaction(PATIENCE)
    producer.begin_transaction()
    write(producer, topic, ["d"])
    producer.commit_transaction(PATIENCE)
    assert read(bootstrap, topic) == ["a", "b", "d"]
    assert read(bootstrap, topic, "read_uncommitted") == ["a", "b", "c", "d"]


def test_a_transaction_is_seen_in_all_partitions_or_in_none(
    bootstrap: str, topic_name: str
) -> None:
    topic = create(bootstrap, topic_name, 3)
    producer = transactional(bootstrap, topic_name)
    for round_ in range(20):
        producer.begin_transaction()
        for partition in range(3):
            write(producer, topic, [round_], partition)
        if round_ % 2:
            producer.abort_transaction(PATIENCE)
        else:
            producer.commit_transaction(PATIENCE)
    rounds = sorted(int(value) for value in read(bootstrap, topic, partitions=3))
    assert rounds == sorted(list(range(0, 20, 2)) * 3)


def test_the_older_of_two_producers_is_fenced(bootstrap: str, topic_name: str) -> None:
    topic = create(bootstrap, topic_name)
    older = transactional(bootstrap, topic_name)
    older.begin_transaction()
    write(older, topic, ["lost"])
    newer = transactional(bootstrap, topic_name)
    with pytest.raises(KafkaException) as refused:
        older.commit_transaction(PATIENCE)
    assert refused.value.args[0].fatal()
    assert refused.value.args[0].code() == KafkaError._FENCED
    newer.begin_transaction()
    write(newer, topic, ["kept"])
    newer.commit_transaction(PATIENCE)
    assert read(bootstrap, topic) == ["kept"]


def test_a_transaction_that_lasts_too_long_is_aborted(bootstrap: str, topic_name: str) -> None:
    topic = create(bootstrap, topic_name)
    vanished = transactional(bootstrap, topic_name, transaction_timeout_ms=1_000)
    vanished.begin_transaction()
    write(vanished, topic, ["lost"])
    plain = Producer({"bootstrap.servers": bootstrap})
    write(plain, topic, ["behind it"])
    deadline = time.monotonic() + PATIENCE
    # The coordinator looks every ten seconds.
    while (values := read(bootstrap, topic)) != ["behind it"]:
        assert values == []
        assert time.monotonic() < deadline
        time.sleep(0.2)


def copy(bootstrap: str, source: str, target: str, name: str, count: int) -> None:
    """Consume, transform, produce, until ``count`` rows are through; abort every third time."""
    group = f"{name}-group"
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    consumer = Consumer(settings)
    consumer.subscribe([source])
    producer = transactional(bootstrap, name)
    attempts, done = 0, 0
    deadline = time.monotonic() + PATIENCE
    while done < count:
        assert time.monotonic() < deadline, f"{done} of {count}"
        messages = [message for message in consumer.consume(7, 1.0) if message.error() is None]
        if not messages:
            continue
        attempts += 1
        producer.begin_transaction()
        write(producer, target, [f"copy of {message.value().decode()}" for message in messages])
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(
            positions, consumer.consumer_group_metadata(), PATIENCE
        )
        if attempts % 3 == 0:
            producer.abort_transaction(PATIENCE)
            for place in consumer.committed(consumer.assignment(), PATIENCE):
                start = max(place.offset, 0)
                consumer.seek(TopicPartition(place.topic, place.partition, start))
            continue
        producer.commit_transaction(PATIENCE)
        done += len(messages)
    committed = consumer.committed(consumer.assignment(), PATIENCE)
    assert sum(max(place.offset, 0) for place in committed) >= count
    consumer.close()


def test_what_is_consumed_and_produced_in_transactions_is_there_once(
    bootstrap: str, topic_name: str
) -> None:
    source = create(bootstrap, f"{topic_name}-source")
    target = create(bootstrap, f"{topic_name}-target")
    write(Producer({"bootstrap.servers": bootstrap}), source, range(100))
    copy(bootstrap, source, target, topic_name, 100)
    assert read(bootstrap, target) == [f"copy of {number}" for number in range(100)]


def test_offsets_of_an_open_transaction_hold_up_who_wants_stable_ones(
    bootstrap: str, topic_name: str
) -> None:
    source = create(bootstrap, f"{topic_name}-source")
    write(Producer({"bootstrap.servers": bootstrap}), source, range(10))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic_name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([source])
    while not consumer.consume(1, 1.0):
        pass
    place = TopicPartition(source, 0, 5)
    producer = transactional(bootstrap, topic_name)
    producer.begin_transaction()
    metadata = consumer.consumer_group_metadata()
    producer.send_offsets_to_transaction([place], metadata, PATIENCE)
    seen: list[int] = []
    waiting = threading.Thread(
        target=lambda: seen.append(consumer.committed([place], PATIENCE)[0].offset)
    )
    waiting.start()
    waiting.join(1.0)
    assert seen == []
    producer.commit_transaction(PATIENCE)
    waiting.join(PATIENCE)
    assert seen == [5]
    consumer.close()


def test_the_java_client_copies_exactly_once(
    bootstrap: str, topic_name: str, java: JavaTools
) -> None:
    source = create(bootstrap, f"{topic_name}-source")
    target = create(bootstrap, f"{topic_name}-target")
    write(Producer({"bootstrap.servers": bootstrap}), source, range(500))
    out = java.run(
        "transactional-message-copier",
        *("--broker-list", bootstrap, "--input-topic", source, "--input-partition", "0"),
        *("--output-topic", target, "--consumer-group", topic_name),
        *("--transactional-id", topic_name, "--transaction-size", "20"),
        *("--enable-random-aborts", "--use-group-metadata", "--group-mode"),
    )
    states = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert states[-1]["remaining"] == 0, states[-1]
    assert read(bootstrap, target) == [str(number) for number in range(500)]


def test_the_java_producer_commits_as_often_as_it_is_told(
    bootstrap: str, topic_name: str, java: JavaTools
) -> None:
    topic = create(bootstrap, topic_name, 3)
    out = java.run(
        "producer-perf-test",
        *("--topic", topic, "--num-records", "20000", "--record-size", "100"),
        *("--throughput", "-1", "--bootstrap-server", bootstrap),
        *("--transactional-id", topic_name, "--transaction-duration-ms", "100"),
    )
    assert "20000 records sent" in out
    assert len(read(bootstrap, topic, partitions=3)) == 20000


def test_transactions_are_listed_described_and_aborted_by_the_tool(
    bootstrap: str, topic_name: str, java: JavaTools
) -> None:
    topic = create(bootstrap, topic_name)
    producer = transactional(bootstrap, topic_name)
    producer.begin_transaction()
    write(producer, topic, ["open"])
    server = ("--bootstrap-server", bootstrap)
    listed = java.run("transactions", *server, "list")
    (line,) = [line for line in listed.splitlines() if line.startswith(f"{topic_name}")]
    assert "Ongoing" in line
    described = java.run("transactions", *server, "describe", "--transactional-id", topic_name)
    assert f"{topic}-0" in described
    producers = java.run(
        "transactions", *server, "describe-producers", "--topic", topic, "--partition", "0"
    )
    rows = [line.split() for line in producers.splitlines() if line[:1].isdigit()]
    assert len(rows) == 1, producers
    # Producer, epoch, coordinator epoch, sequence, time, start of the transaction.
    assert rows[0][-1] == "0", producers
    hanging = java.run(
        "transactions", *server, "find-hanging", "--topic", topic, "--max-transaction-timeout", "0"
    )
    assert topic not in hanging, "its coordinator knows of it"
    java.run(
        "transactions",
        *(*server, "abort", "--topic", topic, "--partition", "0", "--start-offset", "0"),
    )
    assert read(bootstrap, topic) == []
    plain = Producer({"bootstrap.servers": bootstrap})
    write(plain, topic, ["behind it"])
    assert read(bootstrap, topic) == ["behind it"]
