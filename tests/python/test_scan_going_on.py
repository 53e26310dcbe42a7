"""A scan goes on where the last run stopped: at the offsets of a group, or of its output."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path


def send(kafka: ottla.Client, topic: str, *values: str, partition: int = 0) -> None:
    for value in values:
        kafka.send_async(topic, value, partition=partition)
    kafka.flush(30)


def values(scan: ottla.Scan) -> list[str]:
    return sorted(scan.to_polars()["value"].to_list())


def new(kafka: ottla.Client, topic: str, **options: Any) -> ottla.Scan:
    return kafka.scan(topic, value=ottla.text(), **options)


@pytest.mark.parametrize("transport", ["embedded", "tcp"])
def test_a_run_reads_what_came_since_the_last_commit(
    kafka: ottla.Client, remote: ottla.Client, name: str, transport: str
) -> None:
    client = kafka if transport == "embedded" else remote
    kafka.create_topic(name, partitions=2)
    send(kafka, name, "a", "b")
    first = new(client, name, group_id=name)
    assert first.group_id == name
    assert values(first) == ["a", "b"]
    send(kafka, name, "c", partition=1)
    # Nothing was committed.
    assert values(new(client, name, group_id=name)) == ["a", "b", "c"]
    assert first.commit() == {name: {0: 2, 1: 0}}
    second = new(client, name, group_id=name)
    assert values(second) == ["c"]
    kafka.create_partitions(name, 3)
    send(kafka, name, "d", partition=2)
    assert second.commit() == first.end | {name: {0: 2, 1: 1}}
    third = new(client, name, group_id=name)
    assert third.start == {name: {0: 2, 1: 1, 2: 0}}
    assert values(third) == ["d"]
    third.commit()
    third.commit()
    assert values(new(client, name, group_id=name)) == []
    assert client.groups[name].lag == 0


def test_a_batch_is_committed_as_far_as_it_goes(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled, group_id=filled, batch_rows=3, partitions=[1])
    first, second, *_rest = scan
    assert scan.commit(first) == {filled: {1: 3}}
    assert scan.commit(second) == {filled: {1: 6}}
    assert kafka.scan(filled, group_id=filled).start == {filled: {0: 0, 1: 6, 2: 0, 3: 0}}
    assert scan.commit({filled: {1: 7}}) == {filled: {1: 7}}
    for beyond in ({filled: {1: 11}}, {filled: {0: 1}}, {"other": {1: 1}}):
        with pytest.raises(ottla.ConfigError, match="not within this scan"):
            scan.commit(beyond)
    assert kafka.scan(filled, group_id=filled, partitions=[1]).start == {filled: {1: 7}}


def test_rows_that_max_rows_left_out_come_next(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=2)
    send(kafka, name, "a", "b", "c")
    send(kafka, name, "d", "e", partition=1)
    seen = []
    for _ in range(3):
        some = new(kafka, name, group_id=name, max_rows=2)
        seen.append(values(some))
        some.commit()
    assert seen == [["a", "b"], ["c", "d"], ["e"]]


def test_the_second_of_two_runs_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    send(kafka, name, "a")
    early, late = new(kafka, name, group_id=name), new(kafka, name, group_id=name)
    send(kafka, name, "b")
    later = new(kafka, name, group_id=name)
    early.commit()
    for scan in (late, later):
        with pytest.raises(ottla.FencedError, match=f"{name}-0 when the scan was made, and now"):
            scan.commit()
    assert values(new(kafka, name, group_id=name)) == ["b"]
    reset = new(kafka, name, group_id=name)
    kafka.groups.reset(name, name, "earliest")
    with pytest.raises(ottla.FencedError, match="a reset"):
        reset.commit()


def test_a_group_with_members_is_not_moved(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled, group_id=filled)
    with kafka.consumer(filled, group_id=filled, auto_offset_reset="earliest") as member:
        assert member.poll(30) is not None
        with pytest.raises(ottla.KafkaError) as refused:
            scan.commit()
        assert refused.value.name in ("NON_EMPTY_GROUP", "UNKNOWN_MEMBER_ID")
    scan.commit()
    assert kafka.groups[filled].lag == 0


def test_what_was_deleted_or_truncated_is_told(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    send(kafka, name, "a", "b", "c")
    new(kafka, name, group_id=name, max_rows=1).commit()
    kafka.delete_records(name, {0: 2})
    with pytest.raises(ottla.DataLossError, match=f"{name}-0.*start offset 1 "):
        new(kafka, name, group_id=name)
    tolerant = new(kafka, name, group_id=name, on_data_loss="warn")
    assert values(tolerant) == ["c"]
    assert tolerant.commit() == {name: {0: 3}}
    checkpoint = tolerant.end
    kafka.delete_topic(name)
    kafka.create_topic(name)
    send(kafka, name, "d")
    # The group's offsets went with the topic; those that the program keeps did not.
    assert values(new(kafka, name, group_id=name)) == ["d"]
    with pytest.raises(ottla.DataLossError, match="re-created"):
        new(kafka, name, resume=checkpoint)


def test_offsets_of_the_output_are_gone_on_from(
    kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=2)
    send(kafka, name, "a", "b")
    db = sqlite3.connect(tmp_path / "rows.db")
    empty = new(kafka, name, resume=ottla.sql_offsets.load(db, "job"))
    assert values(empty) == ["a", "b"]
    (batch,) = empty
    with db:
        ottla.sql_offsets.save(db, "job", batch.offsets)
    send(kafka, name, "c", partition=1)
    table = ottla.sql_offsets.resume(db, "job")
    assert values(new(kafka, name, resume=table)) == ["c"]
    scan = new(kafka, name, resume=table)
    with db:
        ottla.sql_offsets.save(db, "job", {scan.topic: scan.offsets})
    with db, pytest.raises(ottla.FencedError):
        ottla.sql_offsets.save(db, "job", {empty.topic: empty.offsets})
    # A function is read anew.
    assert values(new(kafka, name, resume=table)) == []
    db.close()
    stored = json.loads(json.dumps(empty.end))
    assert values(new(kafka, name, resume=stored)) == ["c"]
    assert values(new(kafka, name, resume=batch.offsets)) == ["c"]
    asked: list[tuple[str, int]] = []

    def of_mine(topic: str, partition: int) -> int | None:
        asked.append((topic, partition))
        return 2 if partition == 0 else None

    assert values(new(kafka, name, resume=of_mine)) == ["c"]
    assert values(new(kafka, name, resume=of_mine, partitions=[0])) == []
    assert asked == [(name, 0), (name, 1), (name, 0)]


def test_a_scan_begins_at_one_place(kafka: ottla.Client, filled: str) -> None:
    two: list[dict[str, Any]] = [
        {"start": "earliest", "group_id": "g"},
        {"start": "latest", "resume": {}},
        {"group_id": "g", "resume": {}},
    ]
    for both in two:
        with pytest.raises(ottla.ConfigError, match="pass one of"):
            kafka.scan(filled, **both)
    with pytest.raises(ottla.ConfigError, match="not for"):
        kafka.scan(filled, resume={"other": {0: 1}})
    with pytest.raises(TypeError, match="group_id="):
        kafka.scan(filled, group_id=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="resume="):
        kafka.scan(filled, resume="nightly")  # type: ignore[arg-type]
    with pytest.raises(ottla.ConfigError, match="no group to commit to"):
        kafka.scan(filled).commit()
    with pytest.raises(TypeError, match="what is committed"):
        kafka.scan(filled, group_id=filled).commit(5)  # type: ignore[arg-type]
    with pytest.raises(ottla.UnknownTopicError, match="no-such-topic"):
        kafka.scan("no-such-topic", group_id="g")
