"""The Delta table of a topic: what readers of Delta see is what the tier has, whatever happens."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

import ottla
from test_tier_broker import (
    EPOCH_MS,
    PATIENCE,
    SEGMENT_BYTES,
    SETTINGS,
    Node,
    Record,
    await_that,
    fill,
    node,
    read_confluent,
    record,
    send,
)
from test_tier_bucket import Bucket, bucket

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bucket", "node"]

pytestmark = pytest.mark.timeout(180)

OFF = "ottlaTableIsOff"


def path_of(tier: Path, topic: str = "orders") -> str:
    return str(tier / f"topic={topic}")


def named(tier: Path, topic: str = "orders") -> set[str]:
    """Return which files the table names; none before there is one, or while it is closed."""
    try:
        return {place(Path(uri)) for uri in DeltaTable(path_of(tier, topic)).file_uris()}
    except TableNotFoundError:
        return set()
    except DeltaError as error:
        if OFF not in str(error):
            raise
        return set()


def there(tier: Path, topic: str = "orders") -> set[str]:
    return {place(path) for path in (tier / f"topic={topic}").glob("partition=*/*.parquet")}


def place(path: Path) -> str:
    """Return the partition and the name of a file: two partitions may have files of one name."""
    return "/".join(path.parts[-2:])


def await_table(node: Node, topic: str = "orders") -> None:
    """Wait until the table names the files that are there."""
    await_that(
        lambda: named(node.tier, topic) == there(node.tier, topic) != set(),
        lambda: f"{named(node.tier, topic)} {there(node.tier, topic)} {node.log()}",
    )


def rows(tier: Path, topic: str = "orders", partition: int = 0) -> list[Record]:
    """Return the rows of a partition as the records that consumers see."""
    table = DeltaTable(path_of(tier, topic)).to_pyarrow_table(
        filters=[("partition", "=", partition)]
    )
    found = [
        Record(
            row["offset"],
            round(row["timestamp"].timestamp() * 1000),
            row["key"],
            row["value"],
            [(one["key"], one["value"]) for one in row["headers"]],
        )
        for row in table.sort_by("offset").to_pylist()
    ]
    assert {(row["topic"]) for row in table.select(["topic"]).to_pylist()} <= {topic}
    return found


def commits(tier: Path, topic: str = "orders") -> list[list[dict[str, Any]]]:
    log = tier / f"topic={topic}" / "_delta_log"
    paths = sorted(log.glob("*.json"))
    assert [path.name for path in paths] == [f"{number:020}.json" for number in range(len(paths))]
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def alter(bootstrap: str, topic: str, settings: dict[str, str]) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE)


def turn(node: Node, table: str) -> None:
    alter(node.bootstrap, "orders", {"ottla.tier.table": table})


def refuses(work: Callable[[], object], text: str) -> bool:
    try:
        work()
    except DeltaError as error:
        return text in str(error)
    return False


def test_readers_of_delta_see_what_consumers_see(node: Node) -> None:
    node.create("orders", partitions=2, ottla_tier_table="delta")
    records = fill(node, "orders", 700, "zstd")
    producer = Producer({"bootstrap.servers": node.bootstrap})
    for number in range(300):
        send(producer, "orders", record(number), partition=1)
    assert producer.flush(PATIENCE) == 0
    start = node.wait_tiered("orders")
    other = node.wait_tiered("orders", 1)
    await_table(node)
    assert rows(node.tier) == records[:start] == read_confluent(node, "orders", 700)[:start]
    assert rows(node.tier, partition=1) == [record(number) for number in range(other)]

    table = DeltaTable(path_of(node.tier))
    assert table.metadata().partition_columns == ["topic", "partition"]
    adds = pl.DataFrame(table.get_add_actions(flatten=True)).sort("path")
    assert adds["num_records"].sum() == start + other
    firsts = [int(Path(path).name.split("-")[0]) for path in adds["path"]]
    assert adds["min.offset"].to_list() == firsts
    sizes = [(node.tier / "topic=orders" / path).stat().st_size for path in adds["path"]]
    assert adds["size_bytes"].to_list() == sizes
    assert [time.timestamp() * 1000 for time in adds["min.timestamp"]] == pytest.approx(
        [EPOCH_MS + first for first in firsts]
    )
    assert {entry["operation"] for entry in table.history()} == {"FOLLOW"}

    frame = pl.scan_delta(path_of(node.tier))
    wanted = (pl.col("partition") == 0) & pl.col("offset").is_between(190, 209)
    found = frame.filter(wanted).sort("offset").collect()
    assert found["value"].to_list() == [one.value for one in records[190:210]]
    assert found["topic"].unique().to_list() == ["orders"]
    # The folder is still one for all who know nothing of Delta.
    folder = pl.scan_parquet(
        node.tier / "topic=orders" / "**" / "*.parquet", hive_partitioning=True
    )
    assert folder.select(pl.len()).collect().item() == start + other


def test_others_that_write_are_refused(node: Node) -> None:
    node.create("orders", ottla_tier_table="delta")
    fill(node, "orders", 300)
    node.wait_tiered("orders")
    await_table(node)
    path = path_of(node.tier)
    some = pl.scan_delta(path).head(2).collect().to_arrow()
    before, files = len(commits(node.tier)), there(node.tier)
    for attempt in [
        lambda: write_deltalake(path, some, mode="append"),
        lambda: write_deltalake(path, some, mode="overwrite"),
        lambda: DeltaTable(path).delete("offset < 4"),
        lambda: DeltaTable(path).update(updates={"offset": "0"}),
        DeltaTable(path).optimize.compact,
    ]:
        with pytest.raises(DeltaError, match="ottlaTier"):
            attempt()
    assert len(commits(node.tier)) == before
    assert there(node.tier) == files
    # Nothing that the table names, or that is young, is for those who clean up.
    table = DeltaTable(path)
    lite = table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert (lite, table.vacuum(dry_run=True, full=True)) == ([], [])


def test_what_retention_deletes_goes_from_the_table_too(node: Node) -> None:
    node.create("orders", ottla_tier_table="delta")
    fill(node, "orders", 900)
    node.wait_tiered("orders")
    await_table(node)
    alter(node.bootstrap, "orders", {"retention.bytes": str(3 * SEGMENT_BYTES)})
    # Segments that retention closed early are smaller, so there may be more than three.
    await_that(lambda: 0 < len(there(node.tier)) <= 5, node.log)
    await_table(node)
    left = rows(node.tier)
    assert left == [record(number) for number in range(left[0].offset, left[-1].offset + 1)]
    assert left[0].offset > 0
    removes = [
        line["remove"] for commit in commits(node.tier) for line in commit if "remove" in line
    ]
    assert removes
    assert all(remove["dataChange"] for remove in removes)


def test_a_table_is_turned_on_and_off_and_on(node: Node) -> None:
    node.create("orders")
    records = fill(node, "orders", 400)
    node.wait_tiered("orders")
    assert not (node.tier / "topic=orders" / "_delta_log").exists()
    turn(node, "delta")
    await_table(node)

    turn(node, "none")
    path = path_of(node.tier)
    await_that(lambda: refuses(lambda: DeltaTable(path).to_pyarrow_table(), OFF), node.log)
    # Nobody cleans up what the table does not name any more.
    records += fill(node, "orders", 300, first=400)
    node.wait_tiered("orders")
    for full in [False, True]:
        with pytest.raises(DeltaError, match=OFF):
            DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False, full=full)
    closed = len(commits(node.tier))
    node.restart()
    records += fill(node, "orders", 300, first=700)
    start = node.wait_tiered("orders")
    assert len(commits(node.tier)) == closed

    turn(node, "delta")
    await_that(lambda: len(commits(node.tier)) > closed, node.log)
    await_table(node)
    assert rows(node.tier) == records[:start]


def test_a_table_needs_a_tier(node: Node) -> None:
    with pytest.raises(Exception, match=r"needs remote\.storage\.enable=true"):
        node.create("orders", ottla_tier_table="delta", remote_storage_enable="false")
    node.create("orders", ottla_tier_table="delta")
    fill(node, "orders", 300)
    node.wait_tiered("orders")
    await_table(node)
    off = {"remote.storage.enable": "false", "remote.log.delete.on.disable": "true"}
    with pytest.raises(Exception, match=r"needs remote\.storage\.enable=true"):
        alter(node.bootstrap, "orders", off)
    alter(node.bootstrap, "orders", {**off, "ottla.tier.table": "none"})
    await_that(lambda: not there(node.tier), node.log)
    path = path_of(node.tier)
    await_that(lambda: refuses(lambda: DeltaTable(path).to_pyarrow_table(), OFF), node.log)


def test_a_topic_that_comes_again_has_the_table_for_itself(node: Node) -> None:
    node.create("orders", partitions=2, ottla_tier_table="delta")
    fill(node, "orders", 400)
    node.wait_tiered("orders")
    await_table(node)
    path = path_of(node.tier)
    before = DeltaTable(path).metadata().id
    node.delete("orders")
    await_that(lambda: not there(node.tier), node.log)
    assert refuses(lambda: DeltaTable(path).to_pyarrow_table(), OFF)
    node.create("orders", ottla_tier_table="delta")
    records = fill(node, "orders", 300)
    start = node.wait_tiered("orders")
    await_table(node)
    assert rows(node.tier) == records[:start]
    assert DeltaTable(path).metadata().id != before
    # At once, before the files of the one before are gone.
    node.delete("orders")
    node.create("orders", ottla_tier_table="delta")
    records = fill(node, "orders", 500)
    start = node.wait_tiered("orders")
    await_table(node)
    assert rows(node.tier) == records[:start]


def test_a_broker_that_is_killed_at_random_keeps_its_table(node: Node) -> None:
    node.create("orders", ottla_tier_table="delta")
    moments = random.Random(11)
    number = 0
    for _ in range(6):
        producer = Producer({"bootstrap.servers": node.bootstrap, "message.timeout.ms": 2000})
        for _ in range(400):
            send(producer, "orders", record(number))
            number += 1
        producer.poll(moments.uniform(0.2, 1.5))
        node.process.kill()
        producer.flush(5)
        node.start()
    fill(node, "orders", 300, first=number)
    start = node.wait_tiered("orders")
    await_table(node)
    assert rows(node.tier) == read_confluent(node, "orders", start)[:start]
    # Files that no version named never were in the table.
    added = [
        line["add"]["path"] for commit in commits(node.tier) for line in commit if "add" in line
    ]
    assert len(added) == len(set(added))


def test_a_table_that_was_removed_or_damaged_is_made_again(node: Node) -> None:
    node.create("orders", ottla_tier_table="delta")
    records = fill(node, "orders", 400)
    node.wait_tiered("orders")
    await_table(node)
    log = node.tier / "topic=orders" / "_delta_log"
    (log / f"{0:020}.json").write_text("{")
    records += fill(node, "orders", 300, first=400)
    start = node.wait_tiered("orders")
    await_that(lambda: "remove its folder _delta_log" in node.log(), node.log)
    shutil.rmtree(log)
    await_table(node)
    assert rows(node.tier) == records[:start]


def test_the_table_of_somebody_else_is_left_alone(node: Node) -> None:
    path = path_of(node.tier)
    write_deltalake(path, pl.DataFrame({"a": [1]}).to_arrow())
    node.create("orders", ottla_tier_table="delta")
    fill(node, "orders", 300)
    node.wait_tiered("orders")
    await_that(lambda: "that no broker has written" in node.log(), node.log)
    assert pl.read_delta(path).to_dicts() == [{"a": 1}]
    node.delete("orders")
    await_that(
        lambda: not list((node.tier / "topic=orders").glob("partition=*/*.parquet")), node.log
    )
    assert pl.read_delta(path).to_dicts() == [{"a": 1}]


def test_brokers_share_the_table_of_a_topic(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    config = {
        "remote.log.storage.system.enable": True,
        "ottla.tier.url": tier.as_uri(),
        "remote.log.manager.task.interval.ms": 20,
        "log.retention.check.interval.ms": 50,
    }
    with ottla.Cluster(3, path=tmp_path / "data", config=config) as cluster:
        with cluster.client() as kafka:
            settings = {**SETTINGS, "ottla.tier.table": "delta", "min.insync.replicas": 1}
            kafka.create_topic("orders", partitions=6, replication_factor=1, config=settings)
        producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
        for number in range(450):
            for partition in range(6):
                send(producer, "orders", record(number), partition)
        assert producer.flush(PATIENCE) == 0
        # Each has two partitions, with three closed segments each.
        await_that(lambda: len(there(tier)) == 18, lambda: str(there(tier)))
        await_that(lambda: named(tier) == there(tier), lambda: f"{named(tier)} {there(tier)}")
    for partition in range(6):
        found = rows(tier, partition=partition)
        assert found == [record(number) for number in range(len(found))]
        assert len(found) > 300


def test_the_table_of_a_topic_in_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    bucket.create()
    node = Node(tmp_path, "s3://bucket/some/prefix")
    try:
        node.create("orders", ottla_tier_table="delta")
        records = fill(node, "orders", 300)
        start = node.wait_tiered("orders")
        place = "s3://bucket/some/prefix/topic=orders"

        def values() -> list[bytes]:
            table = DeltaTable(place).to_pyarrow_table(columns=["offset", "value"])
            found: list[bytes] = table.sort_by("offset")["value"].to_pylist()
            return found

        await_that(lambda: "_delta_log" in bucket.list(), node.log)
        await_that(lambda: len(values()) == start, node.log)
        assert values() == [one.value for one in records[:start]]
    finally:
        node.process.stop()
