"""``kill -9`` at random moments under an idempotent producer with ``acks=all``."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from processes import BrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 20
PARTITIONS = 3


@pytest.mark.timeout(240)
def test_every_acknowledged_record_is_there_once_and_in_order(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    moments = random.Random(seed)
    broker = BrokerProcess(tmp_path / "data")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("events", PARTITIONS, 1)])["events"].result(30)

    acknowledged: list[list[tuple[int, int]]] = [[] for _ in range(PARTITIONS)]
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)
            return
        number = int(message.value())
        acknowledged[message.partition()].append((message.offset(), number))

    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,
            "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 100,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 100,
            "delivery.timeout.ms": 120_000,
            "queue.buffering.max.messages": 20_000,
        }
    )
    stopping = threading.Event()
    sent = [0] * PARTITIONS

    def produce() -> None:
        while not stopping.is_set():
            for partition in range(PARTITIONS):
                try:
                    producer.produce(
                        "events", str(sent[partition]), partition=partition, on_delivery=delivered
                    )
                    sent[partition] += 1
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)

    worker = threading.Thread(target=produce)
    worker.start()
    try:
        for _ in range(KILLS):
            before = sum(map(len, acknowledged))
            deadline = time.monotonic() + 30
            wanted = before + moments.randrange(1, 3000)
            while sum(map(len, acknowledged)) < wanted and time.monotonic() < deadline:
                stopping.wait(0.001)
            assert sum(map(len, acknowledged)) >= wanted, f"no progress; {broker.stderr()}"
            broker.kill()
            broker = BrokerProcess(tmp_path / "data", port=broker.port)
    finally:
        stopping.set()
        worker.join()
    assert producer.flush(60) == 0
    assert failed == []

    for partition in range(PARTITIONS):
        found = read_all(broker.bootstrap, partition)
        numbers = [number for _, number in found]
        assert numbers == list(range(sent[partition])), f"seed {seed}, partition {partition}"
        offsets = dict(found)
        assert all(offsets[offset] == number for offset, number in acknowledged[partition])
    assert broker.stop() == 0


def read_all(bootstrap: str, partition: int) -> list[tuple[int, int]]:
    """Read a partition up to its high watermark as (offset, number)."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition("events", partition, 0)])
    found: list[tuple[int, int]] = []
    while True:
        message = consumer.poll(30)
        assert message is not None, "no answer for 30 seconds"
        if message.error() is not None:
            assert message.error().code() == KafkaError._PARTITION_EOF
            consumer.close()
            return found
        found.append((message.offset(), int(message.value())))
