"""A topic whose closed segments are in a tier, beside the same topic on the disk.

Everything is in the page cache of the machine; *cold* is what the broker itself has not read yet.
Apache Kafka's tier in a folder, which keeps segments as they are, is part of its tests, which are
published up to version 4.3.0. It takes part if ``OTTLA_KAFKA_TIER_LIBS`` names the folder of its
jars: ``mvn -f tests/kafka/pom.xml package -Ptier -DoutputDirectory=FOLDER``.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.dataset as ds
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

import ottla
from versus import latency, throughput
from versus.measure import BROKER_CPU, OTTLA, measured
from versus.servers import Kafka, Ottla, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from versus.measure import Results
    from versus.servers import Server

MIB, GIB = 1 << 20, 1 << 30
SEGMENT_BYTES = 32 * MIB
CHUNK = 250_000
RATE = 5_000
PATIENCE = 600

DISK, COLD, WARM = "from the disk", "from the tier, cold", "from the tier, again"
FILES, ZSTD = "Parquet files of the tier", "zstd segments"
IDLE, COPYING = "without a tier", "while the tier copies"
SCAN, PYARROW = "scan of the topic", "pyarrow, the same files"

COPY = "tier: copying closed segments, with verification: MB of log/s"
COPY_CPU = "tier: copying closed segments, with verification: CPU s per GiB of log"
READ = "tier: consume, confluent-kafka, JSON events"
FIRST = "tier: first record from a cold offset"
SIZE = "tier: bytes for each 100 bytes of keys and values"
TO_ARROW = "tier: topic to Arrow table: rows/s"


def events(first: int, count: int) -> pl.DataFrame:
    """Return events as services write them: JSON with a few fields, some of them words."""
    chance = np.random.default_rng(first)
    numbers = pl.int_range(first, first + count, eager=True)
    frame = pl.DataFrame(
        {
            "number": numbers,
            "at": 1_700_000_000_000 + numbers * 20,
            "user": chance.integers(50_000, size=count),
            "amount": np.round(chance.lognormal(3, 1, size=count), 2),
            "country": chance.choice(["DE", "FR", "IN", "JP", "NL", "US"], size=count),
            "kind": chance.choice(["order", "payment", "refund", "visit"], size=count),
            "agent": chance.choice(["Firefox/140.0", "Chrome/141.0", "Safari/19.1"], size=count),
            "session": chance.integers(1 << 40, size=count),
        }
    )
    key = pl.concat_str(pl.lit("user-"), "user")
    return frame.select(key=key, value=pl.struct(pl.all()).struct.json_encode())


EAGER = {
    "remote.log.storage.system.enable": "true",
    "remote.log.manager.task.interval.ms": "50",
    "log.retention.check.interval.ms": "50",
}


def ottla_in(folder: Path) -> Ottla:
    """Start a broker with an empty tier; what is read again is to be in memory still."""
    own = {"ottla.tier.url": folder.as_uri(), "ottla.tier.cache.bytes": str(GIB)}
    settings = {**EAGER, **own}
    return Ottla(*(part for pair in settings.items() for part in ("-o", "=".join(pair))))


def kafka_in(folder: Path) -> Kafka:
    """Start a node of Apache Kafka with an empty tier."""
    storage = "org.apache.kafka.server.log.remote.storage.LocalTieredStorage"
    own = {
        "remote.log.storage.manager.class.name": storage,
        "rsm.config.dir": str(folder),
        "remote.log.metadata.manager.listener.name": "PLAINTEXT",
        "rlmm.config.remote.log.metadata.topic.replication.factor": "1",
        "log.initial.task.delay.ms": "50",
    }
    return Kafka(os.environ["OTTLA_KAFKA_TIER_LIBS"], **EAGER, **own)


@contextmanager
def broker(make: Callable[[Path], Ottla | Kafka]) -> Iterator[tuple[Ottla | Kafka, Path]]:
    """Start a broker with an empty tier."""
    with (
        tempfile.TemporaryDirectory(prefix="versus-tier-") as folder,
        fresh(lambda: make(Path(folder))) as server,
    ):
        yield server, Path(folder)


def fill(server: Server, topic: str, count: int, **config: str | int) -> None:
    """Create a topic and write the events to it."""
    settings = {"segment.bytes": SEGMENT_BYTES, "retention.ms": -1, "file.delete.delay.ms": 1}
    named = {name.replace("_", "."): value for name, value in config.items()}
    with ottla.connect(server.bootstrap) as kafka:
        kafka.create_topic(topic, partitions=1, config={**settings, **named})
        for first in range(0, count, CHUNK):
            part = events(first, min(CHUNK, count - first))
            kafka.write(topic, part, key="key", value="raw")


def segments(server: Ottla | Kafka, topic: str) -> list[Path]:
    """Return the segments on the disk."""
    return sorted((server.directory / "data" / f"{topic}-0").glob("*.log"))


def begin_copying(server: Server, topic: str) -> None:
    """Let the tier have the closed segments, and the disk only the open one."""
    changes = {"remote.log.copy.disable": "false", "local.retention.bytes": "1"}
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in changes.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE)


def await_copied(server: Ottla | Kafka, topic: str) -> None:
    """Wait until only the open segment is on the disk."""
    until = time.monotonic() + PATIENCE
    while len(segments(server, topic)) > 1:
        assert time.monotonic() < until, "the tier does not come to its end"
        time.sleep(0.005)


def bytes_of(paths: list[Path]) -> int:
    """Return the size of files."""
    return sum(path.stat().st_size for path in paths)


def copy(results: Results, server: Ottla | Kafka, topic: str) -> None:
    """Copy all closed segments of a topic."""
    closed = bytes_of(segments(server, topic)[:-1])
    with measured(server.pids) as span:
        begin_copying(server, topic)
        await_copied(server, topic)
    results.add(COPY, server.name, closed / span.seconds / 1e6)
    results.add(COPY_CPU, server.name, span.server_cpu / (closed / GIB), lower=True)


def read(results: Results, server: Server, place: str, topic: str, count: int) -> None:
    """Read a topic from its start."""
    who = f"{server.name}, {place}"
    with measured(server.pids) as span:
        consumer = throughput.consume(server, topic, 1, count)
    consumer.close()
    results.add(f"{READ}: records/s", who, count / span.seconds)
    sample = events(0, 1_000)
    mean = sum(sample[name].str.len_bytes().mean() for name in sample.columns)
    cpu = span.server_cpu / (count * mean / GIB)
    results.add(f"{READ}: {BROKER_CPU}", who, cpu, lower=True)


def seek(results: Results, server: Server, place: str, topic: str, end: int, count: int) -> None:
    """Read so many records far from each other, one in each segment, connected before."""
    who = f"{server.name}, {place}"
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap,
            "group.id": "versus",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 1,
            "fetch.message.max.bytes": MIB,
        }
    )
    consumer.assign([TopicPartition(topic, 0, end)])  # connected, and nothing is read
    consumer.poll(0.5)
    waits = []
    for number in range(count):
        offset = number * end // count
        begin = time.perf_counter()
        consumer.assign([TopicPartition(topic, 0, offset)])
        message = consumer.poll(60)
        waits.append((time.perf_counter() - begin) * 1000)
        assert message is not None
        assert not message.error()
        assert message.offset() == offset, f"{message.offset()} instead of {offset}"
    consumer.close()
    waits.sort()
    results.add(f"{FIRST}: p50, ms", who, waits[len(waits) // 2], lower=True)
    results.add(f"{FIRST}: the longest, ms", who, waits[-1], lower=True)


def sizes(results: Results, server: Ottla | Kafka, folder: Path, topic: str, count: int) -> None:
    """Compare the files with segments of the same batches that are compressed with zstd."""
    files = sorted(folder.glob(f"topic={topic}/partition=0/*.parquet"))
    data = ds.dataset(files, format="parquet")
    begin = time.perf_counter()
    table = data.to_table()
    seconds = time.perf_counter() - begin
    raw = table["key"].nbytes + table["value"].nbytes
    results.add(SIZE, FILES, 100 * bytes_of(files) / raw, lower=True)
    results.add(TO_ARROW, PYARROW, table.num_rows / seconds)
    with ottla.connect(server.bootstrap) as kafka:
        begin = time.perf_counter()
        found = kafka.scan(topic, end={0: table.num_rows}, string_view=False).to_pyarrow()
        results.add(TO_ARROW, SCAN, found.num_rows / (time.perf_counter() - begin))
    assert found.num_rows == table.num_rows
    assert found["value"].combine_chunks() == table["value"].combine_chunks()
    fill(server, "zstd", count, compression_type="zstd")
    mean = raw / table.num_rows
    in_segments = bytes_of(segments(server, "zstd"))
    results.add(SIZE, ZSTD, 100 * in_segments / (mean * count), lower=True)


def round_of_tier(results: Results, count: int, seconds: float, *, others: bool) -> None:
    """Measure a topic with this many events."""
    makers: list[Callable[[Path], Ottla | Kafka]] = [ottla_in]
    if others and os.environ.get("OTTLA_KAFKA_TIER_LIBS"):
        makers.append(kafka_in)
    for make in makers:
        with broker(make) as (server, folder):
            round_of_server(results, server, count, seconds)
            if server.name == OTTLA:
                sizes(results, server, folder, "tiered", count)


def round_of_server(results: Results, server: Ottla | Kafka, count: int, seconds: float) -> None:
    """Copy, seek and read a topic with this many events; then produce while another is copied."""
    idle = {"remote_storage_enable": "true", "remote_log_copy_disable": "true"}
    fill(server, "disk", count)
    fill(server, "tiered", count, **idle)
    closed = len(segments(server, "tiered")) - 1
    copy(results, server, "tiered")
    end = int(segments(server, "tiered")[0].stem)
    server.restart_after_kill()
    throughput.consume(server, "disk", 1, count).close()  # a virtual machine compiles its code
    seek(results, server, COLD, "tiered", end, closed)
    seek(results, server, DISK, "disk", end, closed)
    server.restart_after_kill()
    throughput.consume(server, "disk", 1, count).close()
    for place, topic in ((COLD, "tiered"), (WARM, "tiered"), (DISK, "disk")):
        read(results, server, place, topic, count)
    fill(server, "later", count, **idle)
    for when in (IDLE, COPYING):
        if when == COPYING:
            begin_copying(server, "later")
        waits = latency.one_run(server, RATE, seconds)
        p99 = waits[int(len(waits) * 0.99)]
        what = f"tier: produce to consume, {RATE}/s: p99, ms"
        results.add(what, f"{server.name}, {when}", p99, lower=True)
