"""aiokafka: produce, assign, fetch, offsets for times, admin."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def produced(bootstrap: str, topic: str, codec: str | None, *, idempotent: bool) -> None:
    """Write and read back a few hundred records."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=idempotent
    )
    await producer.start()
    try:
        for number in range(200):
            await producer.send(
                topic,
                b"%d" % number,
                partition=0,
                timestamp_ms=1000 + number,
                headers=[("h", b"1")],
            )
        await producer.flush()
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        values = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(200)]
        assert values == [b"%d" % number for number in range(200)]
        assert await consumer.end_offsets([partition]) == {partition: 200}
        times = await consumer.offsets_for_times({partition: 1150})
        assert times[partition].offset == 150
    finally:
        await consumer.stop()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_what_is_produced_is_consumed(bootstrap: str, topic: str, codec: str | None) -> None:
    asyncio.run(produced(bootstrap, topic, codec, idempotent=False))


def test_an_idempotent_producer_works(bootstrap: str, topic: str) -> None:
    asyncio.run(produced(bootstrap, topic, None, idempotent=True))


def test_admin_creates_and_deletes(bootstrap: str, topic_name: str) -> None:
    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic_name, 4, 1)])
            (described,) = await admin.describe_topics([topic_name])
            assert len(described["partitions"]) == 4
            await admin.delete_topics([topic_name])
            deadline = time.monotonic() + 20  # Apache Kafka answers before it is visible
            while topic_name in await admin.list_topics():
                assert time.monotonic() < deadline
        finally:
            await admin.close()

    asyncio.run(run())


def test_the_end_includes_what_was_acknowledged(bootstrap: str, topic: str) -> None:
    """With this client's default, ``acks=1``: list the end, read to it, delete up to it."""

    async def run() -> None:
        partition = TopicPartition(topic, 0)
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
        await producer.start()
        await consumer.start()
        try:
            consumer.assign([partition])
            consumer.seek(partition, 0)
            for number in range(100):
                sent = await producer.send_and_wait(topic, b"%d" % number, partition=0)
                end = (await consumer.end_offsets([partition]))[partition]
                assert end == sent.offset + 1
            values = []
            while await consumer.position(partition) < end:
                values.append((await asyncio.wait_for(consumer.getone(), 20)).value)
            assert values == [b"%d" % number for number in range(100)]
            await producer.send_and_wait(topic, b"last", partition=0)
            await consumer.seek_to_end(partition)
            assert await consumer.position(partition) == end + 1
        finally:
            await consumer.stop()
            await producer.stop()

    asyncio.run(run())
