"""A broker with a tier: consumers read what only the tier has, and nothing is lost.

The clients are those that we did not write, and the broker is a process that can be killed.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)
from kafka import KafkaConsumer, TopicPartition
from pyarrow import parquet

import ottla
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 60
SEGMENT_BYTES = 1 << 20
"""The smallest that Kafka allows."""
RECORD_BYTES = 8 << 10
PROGRAM = os.environ.get("OTTLA_DEBUG_BIN")
EPOCH_MS = 1_700_000_000_000

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"),
    pytest.mark.timeout(180),
]

SETTINGS = {
    "segment.bytes": str(SEGMENT_BYTES),
    "remote.storage.enable": "true",
    "local.retention.bytes": "1",
    "retention.ms": "-1",
    "file.delete.delay.ms": "100",
}


class Record(NamedTuple):
    """What a consumer sees."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Node:
    """A broker with a tier, which is a folder if no other place is given."""

    def __init__(self, directory: Path, place: str | None = None) -> None:
        self.data = directory / "data"
        self.tier = directory / "tier"
        self.place = place or self.tier.as_uri()
        self.settings: dict[str, str] = {}
        self.process = self._start(0)
        self.port = self.process.port
        self.bootstrap = self.process.bootstrap

    def _start(self, port: int) -> BrokerProcess:
        settings = {
            "remote.log.storage.system.enable": "true",
            "ottla.tier.url": self.place,
            "remote.log.manager.task.interval.ms": "20",
            "log.retention.check.interval.ms": "50",
            **self.settings,
        }
        options = [part for pair in settings.items() for part in ("-o", "=".join(pair))]
        return BrokerProcess(self.data, *options, port=port, program=PROGRAM)

    def start(self) -> None:
        self.process = self._start(self.port)

    def restart(self) -> None:
        assert self.process.stop() == 0
        self.start()

    def log(self) -> str:
        return self.process.stderr()

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def create(self, topic: str, partitions: int = 1, **settings: str) -> None:
        config = {**SETTINGS, **{name.replace("_", "."): at for name, at in settings.items()}}
        new = NewTopic(topic, partitions, 1, config=config)
        admin = self.admin()
        admin.create_topics([new])[topic].result(PATIENCE)

    def delete(self, topic: str) -> None:
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(PATIENCE)

    def segments(self, topic: str, partition: int = 0) -> list[int]:
        """Return the first offsets of the segments on this disk."""
        folder = self.data / f"{topic}-{partition}"
        return sorted(int(path.stem) for path in folder.glob("*.log"))

    def files(self, topic: str, partition: int = 0) -> list[Path]:
        return sorted((self.tier / f"topic={topic}" / f"partition={partition}").glob("*.parquet"))

    def wait_tiered(self, topic: str, partition: int = 0) -> int:
        """Wait until only the open segment is here; return where it starts."""
        await_that(lambda: len(self.segments(topic, partition)) == 1, self.log)
        [start] = self.segments(topic, partition)
        assert start > 0
        return start


def await_that(is_so: Callable[[], bool], log: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, log()
        time.sleep(0.02)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    if node.process.process.poll() is None:
        node.process.stop()


def record(number: int, seed: str = "") -> Record:
    noise = random.Random(f"{seed}{number}").randbytes(RECORD_BYTES)
    key = None if number % 5 == 0 else b"key %d" % (number % 17)
    headers: list[tuple[str, bytes | None]] = [("n", b"%d" % number), ("empty", None)]
    return Record(number, EPOCH_MS + number, key, noise, headers if number % 3 == 0 else [])


def send(producer: Producer, topic: str, one: Record, partition: int = 0) -> None:
    producer.produce(
        topic,
        one.value,
        one.key,
        partition=partition,
        timestamp=one.timestamp,
        headers=one.headers or None,
    )
    producer.poll(0)


def fill(node: Node, topic: str, count: int, codec: str = "none", first: int = 0) -> list[Record]:
    """Produce ``count`` records, whose offsets are their numbers."""
    config = {"bootstrap.servers": node.bootstrap, "compression.type": codec, "linger.ms": 5}
    producer = Producer(config)
    records = [record(number) for number in range(first, first + count)]
    for one in records:
        send(producer, topic, one)
    assert producer.flush(PATIENCE) == 0
    return records


def seen(message: Any) -> Record:
    assert message.error() is None, message.error()
    headers = [(name, at) for name, at in message.headers() or []]
    return Record(message.offset(), message.timestamp()[1], message.key(), message.value(), headers)


def read_confluent(
    node: Node, topic: str, end: int, start: int = 0, **settings: Any
) -> list[Record]:
    """Read from ``start`` until the position is ``end``."""
    config = {
        "bootstrap.servers": node.bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        **{name.replace("_", "."): at for name, at in settings.items()},
    }
    consumer = Consumer(config)
    partition = ConfluentPartition(topic, 0, start)
    consumer.assign([partition])
    records: list[Record] = []
    until = time.monotonic() + PATIENCE
    try:
        while consumer.position([partition])[0].offset < end:
            assert time.monotonic() < until, (len(records), node.log())
            records.extend(seen(one) for one in consumer.consume(500, 0.2))
    finally:
        consumer.close()
    return records


def read_kafka_python(node: Node, topic: str, count: int, start: int = 0) -> list[Record]:
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id=None)
    consumer.assign([partition])
    consumer.seek(partition, start)
    records: list[Record] = []
    while len(records) < count:
        polled = consumer.poll(timeout_ms=PATIENCE * 1000)
        assert polled, node.log()
        for one in polled[partition]:
            at = Record(one.offset, one.timestamp, one.key, one.value, list(one.headers))
            records.append(at)
    consumer.close()
    return records


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_consumers_read_what_only_the_tier_has(node: Node, codec: str) -> None:
    node.create("orders")
    records = fill(node, "orders", 700, codec)
    start = node.wait_tiered("orders")
    assert len(node.files("orders")) >= 4
    assert read_confluent(node, "orders", 700) == records
    assert read_confluent(node, "orders", 700, start - 50) == records[start - 50 :]
    assert read_kafka_python(node, "orders", 700) == records
    assert read_kafka_python(node, "orders", 577, 123) == records[123:]

    consumer = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id=None)
    partition = TopicPartition("orders", 0)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 700}
    for number in [0, 1, 200, start - 1, start, 699]:
        found = consumer.offsets_for_times({partition: EPOCH_MS + number})[partition]
        assert (found.offset, found.timestamp) == (number, EPOCH_MS + number)
    assert consumer.offsets_for_times({partition: EPOCH_MS + 700})[partition] is None
    consumer.close()

    node.restart()
    records += fill(node, "orders", 300, codec, first=700)
    assert node.wait_tiered("orders") > start
    assert read_confluent(node, "orders", 1000) == records


def test_a_topic_that_nobody_syncs_is_copied(node: Node) -> None:
    node.create("orders", durability="os")
    records = fill(node, "orders", 400)
    assert node.wait_tiered("orders") > 200
    assert read_confluent(node, "orders", 400) == records


def test_all_groups_of_a_file_are_served(node: Node) -> None:
    count = 300_000
    node.create("orders", segment_bytes=str(5 * SEGMENT_BYTES))
    values = [b"%016d" % number for number in range(count)]
    producer = Producer({"bootstrap.servers": node.bootstrap, "linger.ms": 50})
    for first in range(0, count, 50_000):
        producer.produce_batch("orders", [{"value": at} for at in values[first : first + 50_000]])
        assert producer.flush(PATIENCE) == 0
    start = node.wait_tiered("orders")
    groups = [parquet.read_metadata(path).num_row_groups for path in node.files("orders")]
    assert max(groups) > 1
    assert [one.value for one in read_confluent(node, "orders", count)] == values
    middle = start - 10_000
    assert [one.value for one in read_confluent(node, "orders", count, middle)] == values[middle:]


def test_aborted_transactions_are_not_shown(node: Node) -> None:
    node.create("orders")
    config = {"bootstrap.servers": node.bootstrap, "transactional.id": "writer"}
    producer = Producer(config)
    producer.init_transactions(PATIENCE)
    kept, number = [], 0
    for transaction in range(40):
        producer.begin_transaction()
        for _ in range(25):
            one = record(number)
            send(producer, "orders", one)
            if transaction % 3 != 1:
                kept.append(one.value)
            number += 1
        if transaction % 3 == 1:
            # What was not sent would not be in the log.
            producer.flush(PATIENCE)
            producer.abort_transaction(PATIENCE)
        else:
            producer.commit_transaction(PATIENCE)
    node.wait_tiered("orders")
    end = 40 * 26
    committed = read_confluent(node, "orders", end, isolation_level="read_committed")
    assert [one.value for one in committed] == kept
    everything = read_confluent(node, "orders", end, isolation_level="read_uncommitted")
    assert len(everything) == 1000


def test_a_broker_that_is_killed_at_random_loses_nothing(node: Node) -> None:
    node.create("orders")
    moments = random.Random(7)
    acknowledged: list[Record] = []
    number = 0
    for _ in range(6):
        fates: list[tuple[Record, int]] = []

        def report(one: Record, into: list[tuple[Record, int]]) -> Callable[..., None]:
            def on_delivery(error: Any, message: Any) -> None:
                if error is None:
                    into.append((one, message.offset()))

            return on_delivery

        producer = Producer({"bootstrap.servers": node.bootstrap, "message.timeout.ms": 2000})
        for _ in range(400):
            one = record(number)
            producer.produce(
                "orders",
                one.value,
                one.key,
                partition=0,
                timestamp=one.timestamp,
                headers=one.headers or None,
                on_delivery=report(one, fates),
            )
            number += 1
        until = time.monotonic() + moments.uniform(0.3, 2.5)
        while time.monotonic() < until:
            producer.poll(0.05)
        node.process.kill()
        producer.flush(5)
        acknowledged += [one._replace(offset=at) for one, at in fates]
        node.start()
    records = fill(node, "orders", 300, first=number)
    end = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id=None)
    partition = TopicPartition("orders", 0)
    size = end.end_offsets([partition])[partition]
    end.close()
    node.wait_tiered("orders")
    found = read_confluent(node, "orders", size)
    assert [one.offset for one in found] == list(range(size))
    by_offset = {one.offset: one for one in found}
    for one in acknowledged:
        assert by_offset[one.offset] == one
    assert [one.value for one in found[-300:]] == [one.value for one in records]
    # What was begun when the broker died is not there any more, or no version names it.
    assert not list((node.data / ".tier").glob("*")) or len(node.files("orders")) > 0


def test_a_log_that_was_lost_does_not_take_the_tier_with_it(node: Node) -> None:
    node.create("orders")
    records = fill(node, "orders", 700)
    node.wait_tiered("orders")
    files = node.files("orders")
    assert node.process.stop() == 0
    kept = (node.data / "orders-0").rename(node.data.parent / "kept")
    node.start()
    # Another history of the same offsets.
    others = fill(node, "orders", 400)
    await_that(lambda: "was lost or replaced" in node.log(), node.log)
    node.restart()
    assert read_confluent(node, "orders", 400) == others
    assert node.files("orders") == files
    assert node.process.stop() == 0
    shutil.rmtree(node.data / "orders-0")
    kept.rename(node.data / "orders-0")
    node.start()
    assert read_confluent(node, "orders", 700) == records


def test_a_place_that_only_heard_of_a_partition_is_not_believed(node: Node) -> None:
    right, wrong = node.place, (node.tier.parent / "wrong").as_uri()
    node.place = wrong
    node.restart()
    node.create("orders")
    # Something is written there, but no file.
    await_that(
        lambda: list((node.tier.parent / "wrong").rglob("*manifests*/**/*.json")) != [], node.log
    )
    node.place = right
    node.restart()
    records = fill(node, "orders", 700)
    node.wait_tiered("orders")
    node.place = wrong
    node.restart()
    await_that(lambda: "the tier does not have the offsets" in node.log(), node.log)
    node.place = right
    node.restart()
    assert read_confluent(node, "orders", 700) == records


def test_what_is_not_copied_is_kept_as_long_as_the_whole(node: Node) -> None:
    # The limits of this disk are those of the broker, which may change them.
    new = NewTopic(
        "orders",
        1,
        1,
        config={
            "segment.bytes": str(SEGMENT_BYTES),
            "remote.storage.enable": "true",
            "retention.ms": "-1",
        },
    )
    admin = node.admin()
    admin.create_topics([new])["orders"].result(PATIENCE)
    records = fill(node, "orders", 400)
    await_that(lambda: len(node.files("orders")) > 1, node.log)
    entry = ConfigEntry(
        "remote.log.copy.disable", "true", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, "orders", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE)
    records += fill(node, "orders", 600, first=400)
    node.settings = {"log.local.retention.bytes": "1"}
    node.restart()
    # When the segments of the other topic have gone, those of all topics have been looked at.
    node.create("others", remote_storage_enable="false", retention_bytes="1")
    fill(node, "others", 400)
    await_that(lambda: len(node.segments("others")) == 1, node.log)
    assert read_confluent(node, "orders", 1000) == records


def test_metadata_that_was_lost_does_not_take_the_tier_with_it(node: Node) -> None:
    node.create("orders")
    fill(node, "orders", 400)
    node.wait_tiered("orders")
    files = node.files("orders")
    assert node.process.stop() == 0
    shutil.rmtree(node.data / "__cluster_metadata-0")
    node.start()
    await_that(lambda: "its log is in the data directory" in node.log(), node.log)
    assert node.files("orders") == files


def test_a_flipped_byte_is_named_and_never_served(node: Node) -> None:
    node.create("orders")
    node.create("others")
    fill(node, "orders", 700)
    others = fill(node, "others", 300)
    node.wait_tiered("orders")
    victim = node.files("orders")[1]
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 3] ^= 0x10
    victim.write_bytes(damaged)
    base = int(victim.name.split("-")[0])

    config = {"bootstrap.servers": node.bootstrap, "group.id": "unused"}
    consumer = Consumer({**config, "auto.offset.reset": "error"})
    consumer.assign([ConfluentPartition("orders", 0, 0)])
    offsets: list[int] = []
    until = time.monotonic() + 8
    while time.monotonic() < until and victim.name not in node.log():
        messages = consumer.consume(500, 0.2)
        offsets += [message.offset() for message in messages if message.error() is None]
    consumer.close()
    assert offsets == list(range(base))
    assert victim.name in node.log()
    assert read_confluent(node, "others", 300) == others
    end = int(victim.name.split("-")[1]) + 1
    rest = read_confluent(node, "orders", 700, end)
    assert rest == [record(number) for number in range(end, 700)]


def test_a_store_that_is_away_holds_nobody_up(node: Node) -> None:
    node.create("orders")
    records = fill(node, "orders", 400)
    start = node.wait_tiered("orders")
    elsewhere = node.tier.with_name("elsewhere")
    node.tier.rename(elsewhere)
    records += fill(node, "orders", 600, first=400)
    await_that(lambda: "does not get on" in node.log(), node.log)
    assert not node.tier.exists()
    assert node.segments("orders")[0] == start
    assert len(node.segments("orders")) >= 4
    assert read_confluent(node, "orders", 1000, start) == records[start:]
    elsewhere.rename(node.tier)
    assert node.wait_tiered("orders") > start
    assert "gets on again" in node.log()
    assert read_confluent(node, "orders", 1000) == records


def test_an_empty_store_in_its_place_is_not_believed(node: Node) -> None:
    node.create("orders")
    records = fill(node, "orders", 400)
    start = node.wait_tiered("orders")
    node.process.stop()
    elsewhere = node.tier.with_name("elsewhere")
    node.tier.rename(elsewhere)
    node.start()
    records += fill(node, "orders", 300, first=400)
    await_that(lambda: "does not have the offsets" in node.log(), node.log)
    assert node.segments("orders")[0] == start
    assert not node.files("orders")
    node.process.stop()
    for path in sorted(node.tier.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    node.tier.rmdir()
    elsewhere.rename(node.tier)
    node.start()
    node.wait_tiered("orders")
    assert read_confluent(node, "orders", 700) == records


def test_the_files_of_a_deleted_topic_go_and_only_those(node: Node) -> None:
    node.create("orders", partitions=2)
    node.create("others")
    fill(node, "orders", 400)
    others = fill(node, "others", 400)
    node.wait_tiered("orders")
    node.wait_tiered("others")
    node.delete("orders")
    await_that(lambda: not node.files("orders"), node.log)
    node.create("orders")
    records = fill(node, "orders", 400)
    node.wait_tiered("orders")
    # Deleted while the store is away, and found after a crash.
    elsewhere = node.tier.with_name("elsewhere")
    node.tier.rename(elsewhere)
    node.delete("orders")
    node.process.kill()
    elsewhere.rename(node.tier)
    node.start()
    await_that(lambda: not node.files("orders"), node.log)
    assert read_confluent(node, "others", 400) == others
    assert len(records) == 400


def test_retention_of_the_whole_deletes_files(node: Node) -> None:
    node.create("orders", retention_bytes=str(3 * SEGMENT_BYTES))
    fill(node, "orders", 900)
    node.wait_tiered("orders")
    consumer = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id=None)
    partition = TopicPartition("orders", 0)

    def start() -> int:
        return int(consumer.beginning_offsets([partition])[partition])

    await_that(lambda: len(node.files("orders")) <= 3 and start() > 0, node.log)
    first = start()
    assert int(node.files("orders")[0].name.split("-")[0]) == first
    assert 900 - first >= 2 * SEGMENT_BYTES // RECORD_BYTES
    consumer.close()
    found = read_confluent(node, "orders", 900, first)
    assert found == [record(number) for number in range(first, 900)]


def test_turning_the_tier_off_has_to_say_that_the_files_go(node: Node) -> None:
    node.create("orders")
    fill(node, "orders", 400)
    start = node.wait_tiered("orders")

    def alter(**settings: str) -> None:
        names = {name.replace("_", "."): at for name, at in settings.items()}
        entries = [
            ConfigEntry(name, at, incremental_operation=AlterConfigOpType.SET)
            for name, at in names.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, "orders", incremental_configs=entries)
        admin = node.admin()
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE)

    with pytest.raises(Exception, match="without deleting remote data"):
        alter(remote_storage_enable="false")
    alter(remote_storage_enable="false", remote_log_delete_on_disable="true")
    await_that(lambda: not node.files("orders"), node.log)
    consumer = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id=None)
    partition = TopicPartition("orders", 0)
    assert consumer.beginning_offsets([partition]) == {partition: start}
    consumer.close()
    found = read_confluent(node, "orders", 400, start)
    assert found == [record(number) for number in range(start, 400)]


def test_the_tier_of_another_cluster_is_refused(node: Node, tmp_path: Path) -> None:
    assert node.process.stop() == 0
    with pytest.raises(ottla.ConfigError, match="belongs to the cluster"):
        ottla.Broker(tmp_path / "another", tier=node.tier)


def test_what_cannot_be_tiered_is_refused(node: Node) -> None:
    with pytest.raises(Exception, match="Remote log storage only supports topics with"):
        node.create("compacted", cleanup_policy="compact")
    with pytest.raises(Exception, match="Value must not be more than"):
        node.create("more", retention_bytes="5", local_retention_bytes="6")


def test_a_broker_in_this_process_has_its_tier_in_a_folder(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    with ottla.Broker(tmp_path / "data", tier=tier) as broker, broker.client() as kafka:
        kafka.create_topic("orders", config={"remote.storage.enable": True})
        with pytest.raises(ottla.KafkaError, match="replica"):
            kafka.create_topic(
                "copied", replication_factor=3, config={"remote.storage.enable": True}
            )
    assert (tier / "_ottla" / "cluster.json").exists()
    with ottla.Broker() as broker, broker.client() as kafka:  # noqa: SIM117
        with pytest.raises(ottla.ConfigError, match="functionality is disabled"):
            kafka.create_topic("orders", config={"remote.storage.enable": True})
