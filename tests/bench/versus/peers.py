"""Topics to Arrow tables and back, in every way that a Python user has today."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import polars as pl
import pyarrow as pa
import pyarrow.json
from confluent_kafka import Consumer, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TUNING = {"fetch.queue.backoff.ms": 5}
CHUNK = 50_000


def confluent_values(bootstrap: str, topic: str, rows: int, **settings: Any) -> list[Any]:
    """Read messages of a partition from its beginning."""
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


def confluent_json(bootstrap: str, topic: str, rows: int, **settings: Any) -> int:
    """Read with confluent-kafka and parse with pyarrow, the fastest route available today."""
    messages = confluent_values(bootstrap, topic, rows, **settings)
    lines = b"\n".join([message.value() for message in messages])
    return int(pyarrow.json.read_json(pa.BufferReader(lines)).num_rows)


def polars_lines(events: pa.Table) -> bytes:
    """Return the rows as lines of JSON, as they are in the values of a topic."""
    frame = pl.from_arrow(events)
    assert isinstance(frame, pl.DataFrame)
    return bytes(frame.write_ndjson().encode())


def polars_json(lines: bytes) -> int:
    """Parse lines of JSON that are already in memory: no broker, no client."""
    return int(pl.read_ndjson(io.BytesIO(lines)).height)


def confluent_avro(
    bootstrap: str, topic: str, rows: int, schema: dict[str, Any], **settings: Any
) -> int:
    """Read with confluent-kafka and parse with fastavro."""
    messages = confluent_values(bootstrap, topic, rows, **settings)
    parsed = fastavro.parse_schema(schema)
    read = fastavro.schemaless_reader
    records = [read(io.BytesIO(message.value()), parsed, None) for message in messages]
    return int(pa.Table.from_pylist(records).num_rows)


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
    return int(pa.table({"value": [record.value for record in found[:rows]]}).num_rows)


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
        return int(pa.table({"value": [record.value for record in found[:rows]]}).num_rows)

    return asyncio.run(read())


def quix_rate(bootstrap: str, topic: str, rows: int, kind: str) -> tuple[float | None, str]:
    """Return rows per second of Quix Streams, or why there are none.

    ``OTTLA_QUIX_PYTHON`` names the interpreter that has it; the default is this one.
    """
    python = os.environ.get("OTTLA_QUIX_PYTHON") or sys.executable
    try:
        found = subprocess.run(
            [python, "-c", "import quixstreams"], capture_output=True, check=False
        )
    except OSError as error:
        return None, f"OTTLA_QUIX_PYTHON: {error}"
    if found.returncode:
        return None, f"not measured: {python} has no quixstreams (OTTLA_QUIX_PYTHON)"
    script = Path(__file__).with_name("quix_route.py")
    done = subprocess.run(
        [python, str(script), bootstrap, topic, str(rows), kind],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        return None, f"failed: {done.stderr.strip().splitlines()[-1:]}"
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["rows"] >= rows, printed
    return float(printed["rate"]), ""


def binary_dicts(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Convert a table with key and value to what ``produce_batch`` takes."""
    for batch in table.to_batches(max_chunksize=CHUNK):
        yield batch.to_pylist()


def json_dicts(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Convert a table to JSON values with polars, the fastest way available today."""
    for batch in table.to_batches(max_chunksize=CHUNK):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        lines = frame.write_ndjson().encode().splitlines()
        yield [{"value": line} for line in lines]


def produce_batches(bootstrap: str, topic: str, batches: Iterable[list[dict[str, Any]]]) -> int:
    """Write messages with ``produce_batch`` of confluent-kafka; return how many."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "acks": "all",
        }
    )
    sent = 0
    for batch in batches:
        left = batch
        while left:
            queued = producer.produce_batch(topic, left)
            sent += queued
            left = left[queued:]
            producer.poll(0.01 if left else 0)
    assert producer.flush(120) == 0
    return sent
