"""A table has the latest row of each key: exactly what a query over one scan has."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import ottla
from ottla import _runs, _topic_table

if TYPE_CHECKING:
    from pathlib import Path

FORM = ottla.json({"number": "int64", "text": "utf8", "parts": "list<int64>"})


def scanned(kafka: ottla.Client, table: ottla.Table, value: ottla.Format = FORM) -> pl.DataFrame:
    """The rows that a query over one scan has, at the offsets of the table."""
    scan = kafka.scan(table.topic, end=table.end, value=value)
    names = ["key", "partition", "offset", "is_tombstone"]
    fields = [name for name in scan.schema if name in ("number", "text", "parts", "value")]
    rows = kafka.scan(
        table.topic, end=table.end, value=value, columns=[*names, *fields]
    ).to_polars()
    rows = rows.sort("partition", "offset").unique("key", keep="last", maintain_order=True)
    return rows.filter(~pl.col("is_tombstone")).select("key", *fields).sort("key")


def write_some(kafka: ottla.Client, topic: str, chance: random.Random, count: int) -> None:
    keys = [f"key {chance.randrange(60)}" for _ in range(count)]
    rows = pl.DataFrame(
        {
            "key": keys,
            "number": [chance.randrange(1000) for _ in keys],
            "text": [chance.choice(["", "short", "a text that is not inlined " * 3]) for _ in keys],
            "parts": [list(range(chance.randrange(3))) for _ in keys],
        }
    )
    kafka.write(topic, rows, key="key", value=ottla.json(exclude=["key"]))
    for key in chance.sample(range(60), 5):
        kafka.send_async(topic, None, key=f"key {key}")
    kafka.flush(30)


@pytest.mark.parametrize("place", ["in memory", "in files"])
@pytest.mark.parametrize("run_rows", [7, 250_000])
def test_a_table_equals_a_query_over_one_scan(
    kafka: ottla.Client,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    run_rows: int,
) -> None:
    monkeypatch.setattr(_topic_table, "_RUN_ROWS", run_rows)
    monkeypatch.setattr(_topic_table, "_BATCH_ROWS", min(run_rows, 10_000))
    chance = random.Random(run_rows)
    kafka.create_topic(name, partitions=3)
    path = None if place == "in memory" else tmp_path / "table"
    write_some(kafka, name, chance, 40)
    table = kafka.table(name, value=FORM, path=path)
    mirror: dict[bytes, dict[str, Any]] = {}
    follower = kafka.table(name, value=FORM, refresh=False)
    for round_ in range(12):
        write_some(kafka, name, chance, chance.randrange(50))
        ends = kafka.offsets(name)
        known = table.end[name]
        end = {one: chance.randint(known.get(one, 0), at) for one, at in ends.items()}
        read = table.refresh(end={name: end})
        assert read == sum(at - known.get(one, 0) for one, at in end.items())
        assert table.end == {name: end}
        assert_frame_equal(table.to_polars().sort("key"), scanned(kafka, table))
        for change in follower.changes(end={name: end}):
            assert change.upserts["key"].is_unique().all()
            mirror.update({row["key"]: row for row in change.upserts.to_dicts()})
            for key in change.deletes["key"]:
                mirror.pop(key, None)
        shown = table.to_polars().sort("key").to_dicts()
        assert [mirror[key] for key in sorted(mirror)] == shown
        if path is not None and round_ % 3 == 2:
            table.close()
            table = kafka.table(name, value=FORM, path=path, refresh=False)
            assert table.end == {name: end}
            assert table.to_polars().sort("key").to_dicts() == shown
    assert table.refresh() > 0
    assert table.refresh() == 0
    assert_frame_equal(table.to_polars().sort("key"), scanned(kafka, table))
    # Behind the first run there is nothing to delete.
    assert not table._runs._runs[0][_runs.DELETED].any()
    table.close()


def test_frames_of_all_libraries_have_the_same_rows(kafka: ottla.Client, name: str) -> None:
    import pyarrow as pa

    for number in range(4):
        kafka.send(name, {"number": number}, key=f"{number % 2}")
    table = kafka[name].table(key="text", value={"number": "int64"})
    wanted = [{"key": "0", "number": 2}, {"key": "1", "number": 3}]
    assert table.to_polars().sort("key").to_dicts() == wanted
    assert table.to_pyarrow().sort_by("key").to_pylist() == wanted
    assert sorted(pa.table(table).to_pylist(), key=lambda row: row["key"]) == wanted
    assert table.to_pandas().sort_values("key").to_dict("records") == wanted
    assert pl.DataFrame(table).sort("key").to_dicts() == wanted
    assert len(table) == 2
    assert f"{name} at {{0: 4}}" in repr(table)
    assert "2 keys" in table._repr_html_()


def test_the_columns_are_those_of_a_scan(kafka: ottla.Client, name: str) -> None:
    moment = datetime(2024, 1, 1, tzinfo=timezone.utc)
    kafka.send(name, "old", key="a", timestamp=moment)
    kafka.send(name, "new", key="a", timestamp=moment, headers={"h": b"1"})
    assert kafka.table(name).to_polars().rows() == [(b"a", b"new")]
    names = ["value", "offset", "topic", "timestamp", "timestamp_type", "partition", "headers"]
    rows = kafka.table(name, value="text", columns=names).to_polars()
    assert rows.columns == names
    assert rows.rows() == [("new", 1, name, moment, "CreateTime", 0, [{"key": "h", "value": b"1"}])]
    with pytest.raises(ottla.ConfigError, match="no column 'nothing'"):
        kafka.table(name, columns=["nothing"])


def test_a_value_may_have_the_names_of_kafkas_columns(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, {"key": 5, "offset": "x", "kafka:key": 1}, key="a")
    kafka.send(name, {"key": 6, "offset": "y", "kafka:key": 2}, key="a")
    rows = kafka.table(name, key="text", value="json").to_polars()
    assert rows.to_dicts() == [{"_kafka.key": "a", "key": 6, "offset": "y", "kafka:key": 2}]
    rows = kafka.table(name, value="json", columns=["offset", "_kafka.offset"]).to_polars()
    assert rows.to_dicts() == [{"offset": "y", "_kafka.offset": 1}]


def test_columns_that_were_inferred_stay(kafka: ottla.Client, name: str, tmp_path: Path) -> None:
    kafka.create_topic(name)
    table = kafka.table(name, value="json", path=tmp_path)
    assert table.to_polars().is_empty()
    assert table.refresh() == 0
    kafka.send(name, {"id": 1, "inner": {"x": [1.5]}}, key="a")
    assert table.refresh() == 1
    kafka.send(name, {"id": None, "inner": None}, key="b")
    kafka.send(name, {}, key="c")
    table.refresh()
    table.close()
    again = kafka.table(name, value="json", path=tmp_path)
    assert again.to_polars().sort("key").rows() == [
        (b"a", 1, {"x": [1.5]}),
        (b"b", None, None),
        (b"c", None, None),
    ]
    kafka.send(name, {"id": 2, "more": 1}, key="a")
    with pytest.raises(ottla.DecodeError, match="more"):
        again.refresh()
    # What was read before stays.
    assert again.end == {name: {0: 3}}
    again.close()


def test_a_record_without_a_key_is_named(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, "value", key="a")
    kafka.send(name, "value")
    with pytest.raises(ottla.DecodeError, match=f"offset 1 of {name}-0 has no key"):
        kafka.table(name)
    kafka.delete_records(name, {0: 2})
    kafka.send(name, "value", key=b"\xff")
    assert kafka.table(name).to_polars()["key"].to_list() == [b"\xff"]
    with pytest.raises(ottla.DecodeError, match=f"key of the record at offset 2 of {name}-0"):
        kafka.table(name, key=ottla.text())


def test_partitions_have_no_order_among_each_other(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=2)
    kafka.send(name, "old", key="a", partition=0)
    table = kafka.table(name)
    kafka.send(name, "new", key="a", partition=1)
    table.refresh()
    with pytest.raises(ottla.ConfigError, match="key b'a' has rows in partitions 0, 1"):
        table.to_polars()
    with pytest.raises(ottla.ConfigError, match="in partitions 0, 1"):
        list(kafka.table(name, refresh=False).changes())
    assert kafka.table(name, partitions=[1]).to_polars().rows() == [(b"a", b"new")]
    # Moved: the row of the old partition was deleted.
    kafka.send(name, None, key="a", partition=0)
    table.refresh()
    assert table.to_polars().rows() == [(b"a", b"new")]
    (change,) = kafka.table(name, refresh=False).changes()
    assert change.upserts.rows() == [(b"a", b"new")]
    assert change.deletes.is_empty()
    assert change.offsets == {name: {0: (0, 2), 1: (0, 1)}}


def test_a_change_counts_when_the_loop_asks_for_the_next(
    kafka: ottla.Client, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_topic_table, "_RUN_ROWS", 1)
    monkeypatch.setattr(_topic_table, "_BATCH_ROWS", 2)
    kafka.create_topic(name, partitions=1)
    for batch in range(3):
        kafka.write(name, pl.DataFrame({"key": ["a", "b"], "value": [f"{batch}"] * 2}), key="key")
    kafka.send(name, None, key="b")
    table = kafka.table(name, value="text", path=tmp_path, refresh=False)
    first = next(table.changes(end={0: 5}))
    assert table.end == {name: {}}
    table.close()
    table = kafka.table(name, value="text", path=tmp_path, refresh=False)
    changes = table.changes(end={0: 5})
    again = next(changes)
    assert_frame_equal(first.upserts, again.upserts)
    assert again.offsets == first.offsets == {name: {0: (0, 2)}}
    assert "2 upserts, 0 deletes" in repr(again)
    assert next(changes).offsets == {name: {0: (2, 4)}}
    assert table.end == {name: {0: 2}}
    assert [change.offsets[name][0] for change in changes] == [(4, 5)]
    assert table.end == {name: {0: 5}}
    (*_rows, last) = table.changes()
    assert last.deletes.to_dict(as_series=False) == {"key": [b"b"]}
    assert table.to_polars().rows() == [(b"a", "2")]
    assert list(table.changes()) == []
    kafka.send(name, "x", key="c")
    changes = table.changes()
    next(changes)
    table.refresh()
    with pytest.raises(ottla.ConfigError, match="moved on"):
        next(changes)
    table.close()


def test_a_topic_that_was_created_again_is_told(
    kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.send(name, "old", key="a")
    table = kafka.table(name, path=tmp_path / "t")
    kafka.delete_topic(name)
    kafka.create_topic(name)
    with pytest.raises(ottla.DataLossError, match="re-created"):
        table.refresh()
    kafka.send(name, "new", key="a")
    kafka.send(name, "more", key="b")
    with pytest.raises(ottla.DataLossError, match=r"re-created.*without the directory"):
        table.refresh()
    assert table.to_polars().rows() == [(b"a", b"old")]
    table.close()


def test_deletions_that_may_be_gone_make_it_read_again(kafka: ottla.Client, name: str) -> None:
    settings = {"cleanup.policy": "compact", "delete.retention.ms": 3_600_000}
    kafka.create_topic(name, config=settings)
    kafka.send(name, "one", key="a")
    kafka.send(name, "two", key="b")
    table, tolerant = kafka.table(name), kafka.table(name, on_data_loss="warn")
    kafka.send(name, "three", key="b")
    for one in (table, tolerant):
        # As if the deletion of "a" had come and gone since.
        assert one._runs.facts is not None
        one._runs.facts["read_at"] -= 3_700
        one._runs._runs[0] = one._runs._runs[0].with_columns(pl.lit(b"x").alias("value:value"))
    with pytest.raises(ottla.DataLossError, match="compacted away"):
        next(table.changes())
    assert len(list(tolerant.changes())) == 1
    assert table.refresh() == 3
    assert table.to_polars().sort("key").rows() == [(b"a", b"one"), (b"b", b"three")]
    assert table.refresh() == 0
    kafka.alter_configs(name, {"delete.retention.ms": 0})
    table._settings = None
    deadline = time.monotonic() + 30
    while True:
        try:
            table.refresh()
        except ottla.DataLossError as error:
            assert "delete.retention.ms=0" in str(error)  # noqa: PT017
            break
        assert time.monotonic() < deadline


def test_a_directory_has_one_table_that_was_made_alike(
    kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.send(name, "one", key="a")
    with kafka.table(name, path=tmp_path / "t") as table:
        with pytest.raises(ottla.StorageError, match="is used by another table"):
            kafka.table(name, path=tmp_path / "t")
        assert str(tmp_path / "t") in repr(table)
    kafka.send(name, "two", key="a")
    with pytest.raises(ottla.StorageError, match="was closed"):
        table.refresh()
    for other in ({"value": "text"}, {"key": "text"}, {"partitions": [0]}, {"columns": ["key"]}):
        with pytest.raises(ottla.ConfigError, match="made with other arguments"):
            kafka.table(name, path=tmp_path / "t", **other)
    (run,) = (tmp_path / "t").glob("*.arrow")
    (tmp_path / "t" / "000000000099.arrow").write_text("left by a crash")
    content = bytearray(run.read_bytes())
    content[len(content) // 2] ^= 1
    run.write_bytes(bytes(content))
    with pytest.raises(ottla.CorruptionError, match="is not what was written"):
        kafka.table(name, path=tmp_path / "t")
    content[len(content) // 2] ^= 1
    run.write_bytes(bytes(content))
    with kafka.table(name, path=str(tmp_path / "t")) as table:
        assert table.to_polars().rows() == [(b"a", b"two")]
    assert len(list((tmp_path / "t").glob("*.arrow"))) == 1
    manifest = tmp_path / "t" / "table.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ottla.StorageError, match="another release"):
        kafka.table(name, path=tmp_path / "t")
    manifest.write_text("{")
    with pytest.raises(ottla.CorruptionError, match=r"table\.json"):
        kafka.table(name, path=tmp_path / "t")


def test_what_does_not_make_rows_of_keys_is_refused(kafka: ottla.Client, filled: str) -> None:
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ottla.ConfigError, "keys are read with", {"key": "json"}),
        (ottla.ConfigError, "many rows", {"value": ottla.arrow_ipc()}),
        (ottla.ConfigError, "raise or null", {"on_error": "dlq:letters"}),
        (TypeError, "takes names", {"columns": [ottla.header("h")]}),
        (TypeError, "list of names", {"columns": "key"}),
    ]
    for kind, words, arguments in refused:
        with pytest.raises(kind, match=words):
            kafka.table(filled, **arguments)
    with pytest.raises(ottla.UnknownTopicError, match="no-such-topic"):
        kafka.table("no-such-topic")
