"""Windows are closed once, with exactly the rows that are not late, wherever a run ends."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterable

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
#: Rows of a topic: partition, second, number.
Row = tuple[int, int, int]


def send(kafka: ottla.Client, topic: str, rows: Iterable[Row]) -> None:
    for partition, second, number in rows:
        kafka.send_async(
            topic, f"{number}", partition=partition, timestamp=START + timedelta(seconds=second)
        )
    kafka.flush(30)


def expected(rows: list[Row], every: int, grace: int) -> tuple[dict[int, list[int]], list[int]]:
    """Return the windows that are closed, and the late rows, by the rules and nothing else."""
    latest: dict[int, int] = {}
    late, windows = [], dict[int, list[int]]()
    for partition, second, number in rows:
        end = second // every * every + every
        if partition in latest and end <= latest[partition] - grace:
            late.append(number)
        else:
            windows.setdefault(end, []).append(number)
        latest[partition] = max(latest.get(partition, second), second)
    watermark = min(latest.values(), default=0) - grace
    return {end: sorted(of) for end, of in sorted(windows.items()) if end <= watermark}, late


def disordered(chance: random.Random, count: int, partitions: int) -> list[Row]:
    rows: list[Row] = []
    clocks = dict.fromkeys(range(partitions), 0)
    for number in range(count):
        partition = chance.randrange(partitions)
        clocks[partition] += chance.choice([0, 0, 1, 1, 2, 9])
        second = max(0, clocks[partition] - chance.choice([0, 0, 0, 1, 3, 8, 40]))
        rows.append((partition, second, number))
        if chance.random() < 0.1:
            rows.append(rows[-1])  # A duplicate is a row like any other.
    return rows


def numbers(window: ottla.Window) -> list[int]:
    return sorted(int(value) for value in window.to_polars()["value"])


@pytest.mark.parametrize("seed", range(4))
def test_windows_equal_a_query_wherever_runs_end(kafka: ottla.Client, name: str, seed: int) -> None:
    chance = random.Random(seed)
    kafka.create_topic(name, partitions=3)
    rows = disordered(chance, 400, 3)
    found: dict[int, list[int]] = {}
    late: list[int] = []
    checkpoint: dict[str, Any] | None = None
    written = 0
    while written < len(rows):
        step = chance.randrange(1, 90)
        send(kafka, name, rows[written : written + step])
        written += step
        told: list[int] = []

        def tell(frame: pl.DataFrame, told: list[int] = told) -> None:
            told.extend(map(int, frame["value"]))

        windows = kafka.windows(
            name,
            "5s",
            grace="6s",
            late=tell,
            resume=checkpoint,
            value=ottla.text(),
            columns=["value"],
            batch_rows=chance.choice([1, 3, 50]),
        )
        dies_after = chance.choice([0, 1, 2, 1000])
        for count, window in enumerate(windows):
            if count == dies_after:
                break
            assert window.to_polars().columns == ["value"]
            end = int((window.end - START).total_seconds())
            assert window.end - window.start == timedelta(seconds=5)
            assert end not in found
            assert not found or end > max(found)
            found[end] = numbers(window)
            checkpoint = json.loads(json.dumps(window.checkpoint))
        else:
            checkpoint = json.loads(json.dumps(windows.checkpoint))
            late += told
    for window in kafka.windows(
        name,
        timedelta(seconds=5),
        grace="6s",
        late=lambda frame: late.extend(map(int, frame["value"])),
        resume=checkpoint,
        value="text",
        columns=["value"],
    ):
        found[int((window.end - START).total_seconds())] = numbers(window)
    wanted, wanted_late = expected(rows, 5, 6)
    assert {end: of for end, of in found.items() if end in wanted} == wanted
    assert found == wanted
    assert not Counter(late) - Counter(wanted_late)
    # In one run, all of them, each once.
    late.clear()
    at_once = kafka.windows(
        name,
        "5000ms",
        grace="6s",
        late=lambda frame: late.extend(map(int, frame["value"])),
        value="text",
    )
    assert {int((one.end - START).total_seconds()): numbers(one) for one in at_once} == wanted
    dropped = kafka.windows(name, "5s", grace="6s", late="drop", value="text")
    assert [numbers(one) for one in dropped] == list(wanted.values())
    assert not Counter(late) - Counter(wanted_late)
    if wanted_late:
        assert late


def test_a_late_row_is_named(kafka: ottla.Client, name: str) -> None:
    send(kafka, name, [(0, 5, 0), (0, 70, 1), (0, 200, 2), (0, 59, 3)])
    windows = kafka.windows(name, "1m")
    with pytest.raises(ottla.LateRowError, match=f"offset 3 of {name}-0 is late.*00:00:59"):
        list(windows)
    (first, second) = kafka.windows(name, "1m", late="drop", value="text")
    assert (numbers(first), numbers(second)) == ([0], [1])
    assert [numbers(one) for one in kafka.windows(name, "1m", grace="141s", value="text")] == []
    send(kafka, name, [(0, 201, 4)])
    (only,) = kafka.windows(name, "1m", grace="141s", value="text")
    assert numbers(only) == [0, 3]
    assert only.offsets == {name: {0: (0, 4)}}


def test_a_window_is_arrow(kafka: ottla.Client, name: str) -> None:
    send(kafka, name, [(0, 1, 7), (0, 100, 8)])
    (window,) = kafka[name].windows("1m", value="text", columns=["value", "timestamp"])
    assert pl.DataFrame(window).rows() == [("7", START + timedelta(seconds=1))]
    assert window.to_pyarrow()["value"].to_pylist() == ["7"]
    assert window.to_pandas()["value"].tolist() == ["7"]
    assert len(window) == 1
    assert "1 rows" in repr(window)
    assert (window.start, window.end) == (START, START + timedelta(minutes=1))


@pytest.mark.parametrize("kind", ["timestamp[us]", "timestamp[ns, UTC]", "date32"])
def test_times_may_be_in_the_value(kafka: ottla.Client, name: str, kind: str) -> None:
    for day in (1, 2, 3):
        at = f"2024-01-0{day}" if kind == "date32" else f"2024-01-0{day}T23:59:59.999999"
        kafka.send(name, {"at": at, "offset": day})
    windows = kafka.windows(name, "1d", by="at", value={"at": kind, "offset": "int64"})
    assert [window.to_polars()["offset"].to_list() for window in windows] == [[1], [2]]
    some = kafka.windows(
        name, "1d", by="at", value={"at": kind, "offset": "int64"}, columns=["offset"]
    )
    assert [window.to_polars().to_dicts() for window in some] == [[{"offset": 1}], [{"offset": 2}]]
    kafka.send(name, None)
    with pytest.raises(ottla.DecodeError, match=f"offset 3 of {name}-0 has no 'at'"):
        list(kafka.windows(name, "1d", by="at", value={"at": kind, "offset": "int64"}))
    with pytest.raises(ottla.ConfigError, match="timestamp or a date"):
        list(kafka.windows(name, "1d", by="offset", value={"at": kind, "offset": "int64"}))


def test_a_partition_with_nothing_new_holds_windows_open(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=3)
    send(kafka, name, [(0, 5, 0), (1, 65, 1), (1, 400, 2)])
    assert list(kafka.windows(name, "1m", value="text")) == []
    skipping = kafka.windows(name, "1m", idle="skip", value="text")
    assert [numbers(one) for one in skipping] == [[0], [1]]
    # What comes to it afterwards is late.
    send(kafka, name, [(0, 70, 3), (0, 410, 4)])
    with pytest.raises(ottla.LateRowError, match="offset 1 of"):
        list(kafka.windows(name, "1m", idle="skip", value="text", resume=skipping.checkpoint))
    assert [numbers(one) for one in kafka.windows(name, "1m", value="text")] == [[0], [1, 3]]


def test_a_checkpoint_is_that_of_the_same_windows(kafka: ottla.Client, name: str) -> None:
    send(kafka, name, [(0, 5, 0), (0, 100, 1)])
    checkpoint = kafka.windows(name, "1m").checkpoint
    others: list[dict[str, Any]] = [{"every": "2m"}, {"grace": "1s"}, {"by": "key"}]
    for other in others:
        with pytest.raises(ottla.ConfigError, match="resume= was taken with"):
            kafka.windows(name, **{"every": "1m", "resume": checkpoint, **other})
    with pytest.raises(ottla.ConfigError, match="no checkpoint of windows"):
        kafka.windows(name, "1m", resume={"offsets": {}})
    kafka.delete_topic(name)
    kafka.create_topic(name)
    with pytest.raises(ottla.DataLossError, match="re-created"):
        kafka.windows(name, "1m", resume=checkpoint | {"offsets": {}})
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ottla.ConfigError, "no span of time", {"every": "1 week"}),
        (ottla.ConfigError, "no span of time", {"every": 60}),
        (ottla.ConfigError, "at least a millisecond", {"every": "0s"}),
        (ottla.ConfigError, "not be negative", {"grace": timedelta(seconds=-1)}),
        (ottla.ConfigError, "raise, drop or a function", {"late": "keep"}),
        (ottla.ConfigError, "hold or skip", {"idle": "wait"}),
        (ottla.ConfigError, "raise or null", {"on_error": "column"}),
        (TypeError, "checkpoint of a window", {"resume": 5}),
        (TypeError, "takes names", {"columns": [ottla.header("h")]}),
    ]
    for kind, words, arguments in refused:
        with pytest.raises(kind, match=words):
            kafka.windows(name, **{"every": "1m", **arguments})
