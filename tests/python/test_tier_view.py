"""What users see of the tier of a topic, and having it take what was written so far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pyarrow.dataset
import pytest

import ottla
from ottla._tier import TierPartition
from processes import Program, installed_program
from test_progress import Shown
from test_tier_broker import Node, await_that

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIERED = {"remote.storage.enable": True, "retention.ms": -1}
ROWS = [{"number": number} for number in range(10)]

pytestmark = pytest.mark.timeout(180)


class _AbortedError(Exception):
    """Ends a transaction."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "tier"


@pytest.fixture
def tiering(tmp_path: Path, place: Path) -> Iterator[ottla.Broker]:
    """A broker with a tier, which looks at it as seldom as it does by default."""
    config = {"log.retention.check.interval.ms": 20}
    with ottla.Broker(tmp_path / "data", tier=place, config=config) as broker:
        yield broker


@pytest.fixture(params=["in the process", "over TCP"])
def client(request: pytest.FixtureRequest, tiering: ottla.Broker) -> Iterator[ottla.Client]:
    is_local = request.param == "in the process"
    with tiering.client() if is_local else ottla.connect(tiering.bootstrap_servers) as client:
        yield client


def _until(is_so: Callable[[], bool]) -> None:
    await_that(is_so, lambda: "it does not become so")


def test_everything_written_so_far_comes_to_the_tier(client: ottla.Client, place: Path) -> None:
    orders = client.create_topic("orders", partitions=2, config=TIERED)
    orders.write(ROWS, partition=0)
    orders.write(ROWS[:3], partition=1)
    before = orders.tier
    assert (before.enabled, before.copies, before.place) == (True, True, str(place))
    assert (before.records, before.lag_records) == (0, 13)
    assert not list(place.rglob("*.parquet"))

    shown = Shown()
    # Less than the interval at which the broker looks.
    assert orders.offload(progress=shown, timeout=25) == {0: 10, 1: 3}
    assert (shown.n, shown.total, shown.is_closed) == (13, 13, True)
    files = sorted(place.glob("topic=orders/*/*.parquet"))
    after = orders.tier
    assert (after.records, after.lag_records, after.lag_bytes) == (13, 0, 0)
    assert (after.files, after.bytes) == (2, sum(file.stat().st_size for file in files))
    assert after.log_bytes is not None
    assert after.log_bytes > 100
    assert after.failures == {}
    found = [(one["tiered_end"], one["end"], one["records"]) for one in after.to_pylist()]
    assert found == [(10, 10, 10), (3, 3, 3)]
    rows = pyarrow.dataset.dataset(files, format="parquet").to_table(["offset"])
    assert sorted(rows["offset"].to_pylist()) == sorted([*range(10), *range(3)])
    for shown_as in (repr(after), after._repr_html_()):
        assert "13 records, 2 files of" in shown_as
        assert "0 records (0 B) behind" in shown_as

    # Nothing new, no file.
    assert orders.offload() == {0: 10, 1: 3}
    orders.write(ROWS, partition=1)
    behind = orders.tier
    assert (behind.records, behind.lag_records, behind.files) == (13, 10, 2)
    assert behind.lag_bytes is not None
    assert behind.lag_bytes > 100
    assert asyncio.run(orders.offload_async()) == {0: 10, 1: 13}
    assert orders.tier.files == 3
    assert sorted(orders.scan(value="json").to_polars()["number"]) == sorted(
        [*range(10), *range(3), *range(10)]
    )


def test_what_was_offloaded_may_leave_the_disk(client: ottla.Client) -> None:
    config = {**TIERED, "local.retention.ms": 1}
    orders = client.create_topic("orders", partitions=1, config=config)
    orders.write(ROWS)
    assert orders.tier.partitions[0].local_start == 0
    orders.offload()
    _until(lambda: orders.tier.partitions[0].local_start == 10)
    [partition] = orders.tier.partitions
    assert (partition.start, partition.records, partition.local_bytes) == (0, 10, 0)
    # All is in the tier: nothing to close.
    assert orders.offload() == {0: 10}
    client.delete_records("orders", {0: 4})
    [partition] = orders.tier.partitions
    assert (partition.start, partition.pending, partition.records) == (4, 10, 6)
    assert orders.scan(value="json").to_polars()["number"].to_list() == list(range(4, 10))


def test_without_waiting_the_copy_goes_on(client: ottla.Client) -> None:
    orders = client.create_topic("orders", config=TIERED)
    orders.write(ROWS)
    assert orders.offload(wait=False) == {0: 10}
    _until(lambda: orders.tier.lag_records == 0)


def test_what_only_the_page_cache_has_is_synced(tmp_path: Path, place: Path) -> None:
    with ottla.Broker(tmp_path / "data", tier=place, durability="os") as broker:
        orders = broker.client().create_topic("orders", config=TIERED)
        orders.write(ROWS)
        assert orders.offload() == {0: 10}
        assert orders.tier.files == 1


def test_an_open_transaction_is_named(client: ottla.Client) -> None:
    orders = client.create_topic("orders", partitions=1, config=TIERED)
    orders.write(ROWS)
    with (
        client.transactional("writer") as producer,
        contextlib.suppress(_AbortedError),
        producer.transaction() as transaction,
    ):
        transaction.send("orders", b"later").result(30)
        with pytest.raises(ottla.TimeoutError) as raised:
            orders.offload(timeout=1)
        assert "orders-0 from offset 0 to 10" in str(raised.value)
        assert "a transaction is open" in str(raised.value)
        assert "from offset 10 on" in str(raised.value)
        assert orders.tier.lag_records == 11
        raise _AbortedError
    # The record that was aborted, and the marker of that, which nobody waits for.
    _until(lambda: orders.offload() == {0: 12})


def test_a_store_that_is_away_is_named(client: ottla.Client, place: Path) -> None:
    orders = client.create_topic("orders", partitions=1, config=TIERED)
    orders.write(ROWS)
    orders.offload()
    elsewhere = place.with_name("elsewhere")
    place.rename(elsewhere)
    orders.write(ROWS)
    with pytest.raises(ottla.TimeoutError, match="orders-0 from offset 10 to 20") as raised:
        orders.offload(timeout=2)
    assert str(place) in str(raised.value)
    tier = orders.tier
    assert str(place) in tier.failures[0]
    assert str(place) in tier._repr_html_()
    assert tier.lag_records == 10
    elsewhere.rename(place)
    assert orders.offload() == {0: 20}
    assert orders.tier.failures == {}


def test_topics_that_are_not_copied_are_refused(client: ottla.Client) -> None:
    plain = client.create_topic("plain")
    assert not plain.tier.enabled
    assert plain.tier.files is None
    assert "none (remote.storage.enable is false)" in repr(plain.tier)
    assert "none (remote.storage.enable is false)" in plain.tier._repr_html_()
    with pytest.raises(ottla.ConfigError, match="topic plain has no tier"):
        plain.offload()
    orders = client.create_topic("orders", config={**TIERED, "remote.log.copy.disable": True})
    assert (orders.tier.enabled, orders.tier.copies) == (True, False)
    assert "read only" in repr(orders.tier)
    with pytest.raises(ottla.ConfigError, match=r"set remote\.log\.copy\.disable=false"):
        orders.offload()
    with pytest.raises(ottla.UnknownTopicError, match="did you mean orders"):
        client["order"].offload()
    with pytest.raises(ottla.UnknownTopicError, match="did you mean orders"):
        _ = client["order"].tier


def test_each_leader_tells_of_its_partitions_and_copies_them(place: Path) -> None:
    config = {"remote.log.storage.system.enable": True, "ottla.tier.url": place.as_uri()}
    with ottla.Cluster(config=config) as cluster, cluster.client() as kafka:
        kafka.create_topic("orders", assignment={0: [1], 1: [2], 2: [3]}, config=TIERED)
        orders = kafka["orders"]
        for partition in range(3):
            orders.write(ROWS[: partition + 1], partition=partition)
        assert orders.tier.lag_records == 6
        assert orders.offload() == {0: 1, 1: 2, 2: 3}
        tier = orders.tier
        assert [(one.files, one.records, one.lag_bytes) for one in tier.partitions] == [
            (1, 1, 0),
            (1, 2, 0),
            (1, 3, 0),
        ]
        assert len(list(place.rglob("*.parquet"))) == 3


def test_a_broker_without_a_tier_is_named(kafka: ottla.Client, name: str) -> None:
    topic = kafka.create_topic(name)
    assert topic.tier.place is None
    with pytest.raises(ottla.ConfigError, match=r"remote\.log\.storage\.system\.enable=true"):
        topic.offload()


def test_errors_of_progress_are_raised(client: ottla.Client) -> None:
    class Progress:
        """Fails."""

        def update(self, _count: int) -> None:
            """Fail."""
            raise RuntimeError("no room for a bar")

        def close(self) -> None:
            """Take no more."""

    orders = client.create_topic("orders", config=TIERED)
    orders.write(ROWS)
    with pytest.raises(RuntimeError, match="no room for a bar"):
        orders.offload(progress=Progress())


def test_what_a_cluster_does_not_tell_is_not_guessed() -> None:
    partitions = [
        TierPartition(0, start=2, local_start=8, tiered_end=10, pending=10, end=12),
        TierPartition(1, start=0, local_start=5, end=7, failure="no <room>"),
    ]
    tier = ottla.TopicTier("orders", enabled=True, copies=True, partitions=partitions)
    assert (partitions[0].records, partitions[0].lag_records) == (8, 2)
    assert (partitions[1].records, partitions[1].lag_records) == (None, None)
    assert (tier.records, tier.files, tier.bytes, tier.lag_bytes) == (None, None, None, None)
    assert "an unknown number of records" in repr(tier)
    assert "files of" not in repr(tier)
    assert "<td>-</td>" in tier._repr_html_()
    assert "orders-1 does not get on: no <room>" in repr(tier)
    assert "orders-1 does not get on: no &lt;room&gt;" in tier._repr_html_()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_wait_survives_the_restart_of_the_broker(tmp_path: Path) -> None:
    node = Node(tmp_path)
    try:
        node.create("orders")
        with ottla.connect(node.bootstrap) as client, client.transactional("writer") as producer:
            orders = client["orders"]
            orders.write(ROWS)
            done: list[dict[int, int]] = []
            with producer.transaction() as transaction:
                # Holds back the segment that it is in.
                transaction.send("orders", b"later").result(60)
                waiting = threading.Thread(target=lambda: done.append(orders.offload(timeout=120)))
                waiting.start()
                _until(lambda: node.segments("orders") == [0, 11])
                node.process.kill()
                node.start()
            waiting.join(120)
            assert done == [{0: 10}]
            # With the marker, if that was there when the new leader was told.
            assert orders.tier.records in (11, 12)
            assert node.files("orders")
    finally:
        node.process.kill()


def test_the_command_line_shows_and_offloads(tiering: ottla.Broker, place: Path) -> None:
    kafka = tiering.client()
    path = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()
    program = Program(path, tiering.bootstrap_servers, "tier")
    assert "no topic has a tier" in program.run("status").stderr
    assert program.json("status", "--output", "json") == []
    orders = kafka.create_topic("orders", partitions=2, config=TIERED)
    kafka.create_topic("plain", partitions=1)
    orders.write(ROWS, partition=1)
    assert program.run("offload", "orders").stdout == "offloaded topic orders\n"
    [empty, full] = program.json("status", "--output", "json")
    assert (empty["topic"], empty["partition"], empty["files"]) == ("orders", 0, 0)
    assert (full["start"], full["tiered_end"], full["end"], full["files"]) == (0, 10, 10, 1)
    assert (full["lag_records"], full["lag_bytes"], full["failure"]) == (0, 0, None)
    assert full["bytes"] == sum(file.stat().st_size for file in place.rglob("*.parquet"))
    plain = program.run("status", "plain")
    assert "topic plain has no tier" in plain.stderr
    assert "lag records" in plain.stdout
    assert "topic plain has no tier" in program.run("offload", "plain", status=1).stderr
    assert "name the topics" in program.run("offload", status=2).stderr
    assert "did you mean orders" in program.run("status", "order", status=1).stderr

    orders.write(ROWS, partition=0)
    assert "being copied" in program.run("offload", "orders", "--no-wait").stdout
    _until(lambda: orders.tier.lag_records == 0)
    elsewhere = place.with_name("elsewhere")
    place.rename(elsewhere)
    orders.write(ROWS, partition=0)
    began = time.monotonic()
    late = program.run("offload", "orders", "--timeout", "2", status=5)
    assert time.monotonic() - began < 60
    assert "orders-0 from offset 10 to 20" in late.stderr
    assert str(place) in late.stderr
    elsewhere.rename(place)
