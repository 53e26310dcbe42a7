"""Topics to Arrow tables and back: ours, and every way that a Python user has today."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.json
from confluent_kafka import Consumer, Producer, TopicPartition

import ottla
from versus.servers import KAFKA, create_topic, delete_topic

sys.path.insert(0, str(Path(__file__).parent.parent))
from end_to_end import EVENT_TYPES, binary_table, event_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from versus.measure import Results
    from versus.servers import Server

EMBEDDED, TCP = "ottla, embedded", "ottla, TCP"
CONFLUENT, TUNED = "confluent-kafka", "confluent-kafka, fetch.queue.backoff.ms=5"
TO_ARROW = "topic to Arrow table, 150 B records: rows/s"
TO_JSON = "topic to 8 typed columns, JSON: rows/s"
FROM_ARROW = "dataframe to topic, 150 B records: rows/s"
FROM_JSON = "dataframe to topic, JSON of 8 columns: rows/s"
SLOW_PART = 10
"""Routes that would take minutes read one record out of so many."""


def rate(rows: int, read: Callable[[], int]) -> float:
    """Return rows per second of something that reads them all."""
    begin = time.perf_counter()
    found = read()
    elapsed = time.perf_counter() - begin
    assert found == rows, f"{found} of {rows} rows"
    return rows / elapsed


def confluent_values(bootstrap: str, topic: str, rows: int, **settings: Any) -> list[Any]:
    """Read all messages of a partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "frames", **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Any] = []
    while len(messages) < rows:
        messages += consumer.consume(min(10_000, rows - len(messages)), 10)
    consumer.close()
    return messages


def confluent_table(bootstrap: str, topic: str, rows: int, **settings: Any) -> int:
    """Read with confluent-kafka into a pyarrow table."""
    messages = confluent_values(bootstrap, topic, rows, **settings)
    table = pa.table(
        {
            "offset": pa.array([message.offset() for message in messages], pa.int64()),
            "timestamp": pa.array([message.timestamp()[1] for message in messages], pa.int64()),
            "key": pa.array([message.key() for message in messages], pa.binary()),
            "value": pa.array([message.value() for message in messages], pa.binary()),
        }
    )
    return int(table.num_rows)


def confluent_json(bootstrap: str, topic: str, rows: int) -> int:
    """Read with confluent-kafka and parse with pyarrow, the fastest route of today."""
    settings = {"fetch.queue.backoff.ms": 5}
    messages = confluent_values(bootstrap, topic, rows, **settings)
    lines = b"\n".join([message.value() for message in messages])
    return int(pyarrow.json.read_json(pa.BufferReader(lines)).num_rows)


def kafka_python_table(bootstrap: str, topic: str, rows: int) -> int:
    """Read with kafka-python."""
    import kafka

    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
    part = kafka.TopicPartition(topic, 0)
    consumer.assign([part])
    consumer.seek(part, 0)
    found: list[Any] = []
    while len(found) < rows:
        for records in consumer.poll(timeout_ms=1000, max_records=10_000).values():
            found += records
    consumer.close()
    return int(pa.table({"value": [record.value for record in found]}).num_rows)


def aiokafka_table(bootstrap: str, topic: str, rows: int) -> int:
    """Read with aiokafka."""
    import aiokafka

    async def read() -> int:
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap)
        await consumer.start()
        part = aiokafka.TopicPartition(topic, 0)
        consumer.assign([part])
        consumer.seek(part, 0)
        found: list[Any] = []
        while len(found) < rows:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=10_000)).values():
                found += records
        await consumer.stop()
        return int(pa.table({"value": [record.value for record in found]}).num_rows)

    return asyncio.run(read())


def produce_batch(bootstrap: str, topic: str, table: pa.Table) -> int:
    """Write a table with ``produce_batch`` of confluent-kafka."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "acks": "all",
        }
    )
    for batch in table.to_batches(max_chunksize=50_000):
        left = batch.to_pylist()
        while left:
            queued = producer.produce_batch(topic, left)
            left = left[queued:]
            producer.poll(0.01 if left else 0)
    assert producer.flush(120) == 0
    return int(table.num_rows)


def scan(client: ottla.Client, topic: str, **options: Any) -> int:
    """Read with ours."""
    return sum(batch.num_rows for batch in client.scan(topic, **options))


def round_of_reads(results: Results, servers: list[Server], rows: int) -> None:
    """One round of all routes from a topic to a table, and back."""
    binary, events = binary_table(rows), event_table(rows)
    with ottla.Broker(durability="os") as broker, broker.client() as client:
        _round(results, EMBEDDED, client, binary, events)
    for server in servers:
        with ottla.connect(server.bootstrap) as client:
            who = TCP if server.name != KAFKA else "ottla's client, Apache Kafka"
            _round(results, who, client, binary, events)
        if server.name == KAFKA:
            _round_of_others(results, server, binary, events)


def _round_of_others(results: Results, server: Server, binary: pa.Table, events: pa.Table) -> None:
    """What users do today, against Apache Kafka."""
    address, rows = server.bootstrap, binary.num_rows
    for topic in ("frames", "frames-json", "frames-write"):
        create_topic(server, topic, 1)
    with ottla.connect(address) as client:
        client.write("frames", binary, key="key", value=ottla.raw("value"))
        client.write("frames-json", events, value=ottla.json())
    written = rate(rows, lambda: produce_batch(address, "frames-write", binary))
    results.add(FROM_ARROW, CONFLUENT, written, wanted=4)
    tuned = {"fetch.queue.backoff.ms": 5}
    read = rate(rows, lambda: confluent_table(address, "frames", rows, **tuned))
    results.add(TO_ARROW, TUNED, read, wanted=30)
    read = rate(rows, lambda: confluent_json(address, "frames-json", rows))
    results.add(TO_JSON, TUNED, read, wanted=6)
    slow = {
        CONFLUENT: confluent_table,
        "aiokafka": aiokafka_table,
        "kafka-python": kafka_python_table,
    }
    for who, route in slow.items():
        begin = time.perf_counter()
        found = route(address, "frames", rows // SLOW_PART)
        results.add(TO_ARROW, who, found / (time.perf_counter() - begin))
    for topic in ("frames", "frames-json", "frames-write"):
        delete_topic(server, topic)


def _round(
    results: Results, who: str, client: ottla.Client, binary: pa.Table, events: pa.Table
) -> None:
    rows = binary.num_rows
    client.create_topic("ours", partitions=1)
    client.create_topic("ours-json", partitions=1)
    written = rate(rows, lambda: client.write("ours", binary, key="key", value=ottla.raw("value")))
    results.add(FROM_ARROW, who, written)
    written = rate(rows, lambda: client.write("ours-json", events, value=ottla.json()))
    results.add(FROM_JSON, who, written)
    results.add(TO_ARROW, who, rate(rows, lambda: scan(client, "ours")))
    typed = ottla.json(EVENT_TYPES)
    results.add(TO_JSON, who, rate(rows, lambda: scan(client, "ours-json", value=typed)))
    client.delete_topic("ours")
    client.delete_topic("ours-json")
