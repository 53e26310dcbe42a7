"""Listing, describing, resetting and deleting groups, from Python and from the command line."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import ottla
from processes import ottla_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.typing import GroupProtocol

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def filled(kafka: ottla.Client, name: str) -> str:
    """A topic with ten records, an hour apart, in each of two partitions."""
    kafka.create_topic(name, partitions=2)
    for number in range(10):
        for partition in range(2):
            moment = EPOCH + timedelta(hours=number)
            kafka.send_async(name, str(number), partition=partition, timestamp=moment)
    kafka.flush(30)
    return name


def join(kafka: ottla.Client, name: str, **options: Any) -> ottla.Consumer:
    consumer = kafka.consumer(name, group_id=name, auto_offset_reset="earliest", **options)
    while not consumer.assignment:
        consumer.poll(0.05)
    return consumer


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_is_described_with_members_and_lag(
    broker: ottla.Broker, filled: str, protocol: GroupProtocol
) -> None:
    with (
        broker.client(client_id="etl-7") as kafka,
        join(kafka, filled, group_protocol=protocol) as consumer,
    ):
        consumer.commit({filled: {0: 4}})
        group = kafka.groups[filled]
        assert (group.state, group.type) == ("Stable", protocol)
        assert group.assignor == ("range" if protocol == "classic" else "uniform")
        (member,) = group.members
        assert member.client_id == "etl-7"
        assert member.topics == [filled]
        assert member.assignment == [(filled, 0), (filled, 1)]
        assert [(one.committed_offset, one.lag) for one in group.partitions] == [
            (4, 6),
            (None, None),
        ]
        assert {one.member_id for one in group.partitions} == {member.member_id}
        assert group.lag is None, "where it begins in partition 1 is not known"
        assert "  lag -\n" in repr(group)
        consumer.commit({filled: {1: 9}})
        assert kafka.groups[filled].lag == 7
        assert filled in repr(group)
        assert "etl-7" in repr(group)
        assert "<td>etl-7</td>" in group._repr_html_()
        assert list(group.to_pandas()["log_end_offset"]) == [10, 10]
        assert any(
            (one.group_id, one.state, one.type) == (filled, "Stable", protocol)
            for one in kafka.groups.list(state="Stable", type=protocol)
        )
        assert filled not in [one.group_id for one in kafka.groups.list(state="Empty")]
        with pytest.raises(ottla.KafkaError, match="members first"):
            kafka.groups.reset(filled, to="earliest")
        with pytest.raises(ottla.KafkaError, match=r"NON_EMPTY_GROUP|not empty"):
            kafka.groups.delete(filled)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_that_commits_nothing_has_no_known_lag(
    kafka: ottla.Client, filled: str, protocol: str
) -> None:
    with join(kafka, filled, group_protocol=protocol) as consumer:
        consumer.poll(0.1)
        assert [one.lag for one in kafka.groups[filled].partitions] == [None, None]
        assert kafka.groups[filled].lag is None


def test_a_partition_that_never_had_a_record_has_no_lag(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=2)
    with join(kafka, name) as consumer:
        assert kafka.groups[name].lag == 0
        kafka.send(name, "one", partition=1)
        assert [one.lag for one in kafka.groups[name].partitions] == [0, None]
        assert kafka.groups[name].lag is None
        consumer.commit({name: {1: 0}})
        assert kafka.groups[name].lag == 1


def test_offsets_are_reset_to_every_place(kafka: ottla.Client, filled: str) -> None:
    groups = kafka.groups
    places: list[tuple[dict[str, Any], list[int]]] = [
        ({"to": "latest"}, [10, 10]),
        ({"to": 3}, [3, 3]),
        ({"shift": 4}, [7, 7]),
        ({"shift": -100}, [0, 0]),
        ({"to": {1: 5}}, [0, 5]),
        ({"to": EPOCH + timedelta(hours=8, minutes=-1)}, [8, 8]),
        ({"to": "2026-01-01T02:00:00"}, [2, 2]),
        ({"to": timedelta(days=-1)}, [10, 10] if datetime.now(timezone.utc) > EPOCH else [0, 0]),
        ({"to": "earliest"}, [0, 0]),
        ({"to": 99}, [10, 10]),
        ({"to": "current"}, [10, 10]),
    ]
    before: list[int | None] = [None, None]
    for place, wanted in places:
        dry = groups.reset(filled, filled, dry_run=True, **place)
        changes = groups.reset(filled, filled, **place)
        assert dry == changes
        for partition, change in changes[filled].items():
            assert change == (before[partition], wanted[partition]), place
        before = [one.committed_offset for one in groups[filled].partitions]
        assert before == wanted
    groups.reset(filled, {filled: [1]}, "earliest")
    assert [one.committed_offset for one in groups[filled].partitions] == [10, 0]
    assert groups.reset(filled, to="latest") == {filled: {0: (10, 10), 1: (0, 10)}}
    groups.delete_offsets(filled, filled, [0])
    assert [one.partition for one in groups[filled].partitions] == [1]
    groups.delete(filled)
    assert filled not in groups
    with pytest.raises(ottla.KafkaError, match=r"GROUP_ID_NOT_FOUND|not found"):
        groups[filled]


def test_a_reset_says_what_it_cannot_do(kafka: ottla.Client, filled: str) -> None:
    with pytest.raises(ottla.ConfigError, match="either to= or shift="):
        kafka.groups.reset(filled, filled)
    with pytest.raises(ottla.ConfigError, match="no offset for"):
        kafka.groups.reset(filled, filled, shift=1)
    with pytest.raises(ottla.ConfigError, match="name a topic"):
        kafka.groups.reset(filled, to="earliest")
    with pytest.raises(ottla.UnknownTopicError):
        kafka.groups.reset(filled, {filled: [7]}, "earliest")


@pytest.fixture
def run(broker: ottla.Broker) -> Callable[..., str]:
    """Run the program and return what it writes."""

    def run(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [ottla_program(), *words, "--bootstrap-server", broker.bootstrap_servers.split(",")[0]],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def test_the_command_line_shows_and_resets_groups(
    kafka: ottla.Client, filled: str, run: Callable[..., str]
) -> None:
    with join(kafka, filled) as consumer:
        consumer.commit({filled: {0: 4}})
        assert filled in run("groups", "list", "--state", "Stable")
        assert "assignor range" in run("groups", "describe", "--group", filled)
        assert f"{filled}:0,1" in run("groups", "describe", filled, "--members")
        (told,) = json.loads(run("groups", "describe", filled, "--output", "json"))
        assert [one["lag"] for one in told["partitions"]] == [6, None]
        assert "lag -" in run("groups", "describe", filled)
        consumer.commit({filled: {1: 9}})
        assert "lag 7" in run("groups", "describe", filled)
        assert told["members"][0]["count"] == 2
        assert "members first" in run(
            "groups", "reset", filled, "--to-earliest", "--execute", status=1
        )

    def reset(*words: str) -> list[tuple[int | None, int]]:
        rows = json.loads(run("groups", "reset", filled, "--output", "json", *words))
        return [(row["old_offset"], row["new_offset"]) for row in rows]

    run("groups", "delete", filled, "--topic", f"{filled}:1")
    assert reset("--to-latest") == [(4, 10)]
    assert reset("--topic", filled, "--to-latest", "--execute") == [(4, 10), (None, 10)]
    assert reset("--topic", f"{filled}:1", "--shift-by", "-3", "--execute") == [(10, 7)]
    assert reset("--to-datetime", "2026-01-01T05:00:00Z") == [(10, 5), (7, 5)]
    assert reset("--to-offset", "2", "--execute") == [(10, 2), (7, 2)]
    assert reset("--to-current") == [(2, 2), (2, 2)]
    assert reset("--by-duration", "PT1H")[0][0] == 2
    assert "required" in run("groups", "reset", filled, status=2)
    run("groups", "delete", filled, "--topic", f"{filled}:0")
    assert [one.partition for one in kafka.groups[filled].partitions] == [1]
    assert "deleted" in run("groups", "delete", filled)
    assert filled not in kafka.groups


def test_the_command_line_consumes_as_a_member(
    kafka: ottla.Client, filled: str, run: Callable[..., str]
) -> None:
    words = ["consume", filled, "--group", filled, "--from-beginning"]
    first = run(*words, "--max-messages", "7").split()
    assert len(first) == 7
    assert sum(one.committed_offset or 0 for one in kafka.groups[filled].partitions) == 7
    rest = run(*words, "--max-messages", "13", "--group-protocol", "consumer").split()
    assert sorted(first + rest) == sorted([str(number) for number in range(10)] * 2)
    assert kafka.groups[filled].lag == 0
    table = run(*words, "--output", "table", "--timeout-ms", "300")
    assert "0" not in table.splitlines()[-1:]
    assert "--partition" in run(*words, "--partition", "1", status=2)
