"""Dask reads a topic in parts, and writes back from each task."""

from __future__ import annotations

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

ROW = ["partition", "offset", "value"]
BIG = 2**60


def rows(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(frame[ROW].itertuples(index=False, name=None))


@pytest.mark.parametrize("parts", [None, 1, 3, 1000])
def test_a_dask_dataframe_has_the_rows_of_the_scan(
    kafka: ottla.Client, filled: str, parts: int | None
) -> None:
    scan = kafka.scan(filled, start={0: 3, 1: 0, 2: 10, 3: 9}, value=ottla.text())
    frame = scan.to_dask(parts)
    # Three partitions have any rows.
    assert frame.npartitions == {None: 3, 1: 1, 3: 3, 1000: 18}[parts]
    kafka.send(filled, "later", partition=0)
    wanted = sorted(scan.to_polars().select(ROW).rows())
    assert rows(frame.compute()) == wanted
    # What is read again is the same.
    assert rows(frame.compute(scheduler="synchronous")) == wanted


def test_the_types_are_known_before_anything_is_read(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    table = pl.DataFrame(
        {
            "id": [*range(50)],
            "amount": [None if number % 3 else BIG + number for number in range(50)],
            "tags": [["a", "b"]] * 50,
        }
    )
    kafka.write(name, table)
    columns = ["topic", "offset", "timestamp", "headers", "id", "amount", "tags"]
    frame = kafka.scan(name, value=ottla.json(), columns=columns).to_dask(parts=7)
    told, found = frame.dtypes.to_dict(), frame.compute()
    assert told == found.dtypes.to_dict()
    assert [str(told[column]) for column in ("topic", "id", "amount")] == [
        "string[pyarrow]",
        "int64[pyarrow]",
        "int64[pyarrow]",
    ]
    assert int(frame["amount"].max().compute()) == BIG + 48
    assert int(frame["amount"].count().compute()) == 17
    with pytest.raises(ottla.ConfigError, match="at least one part"):
        kafka.scan(name).to_dask(parts=0)


def test_a_scan_without_rows_has_its_columns(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    frame = kafka.scan(name, value={"n": "int64"}, columns=["offset", "n"]).to_dask()
    assert list(frame.columns) == ["offset", "n"]
    assert len(frame) == 0


def test_a_part_that_is_not_there_in_full_is_an_error(kafka: ottla.Client, filled: str) -> None:
    frame = kafka.scan(filled, value=ottla.text()).to_dask(parts=5)
    kafka.delete_records(filled, {2: 4})
    with pytest.raises(ottla.DataLossError):
        frame.compute()


def test_a_worker_that_is_killed_takes_no_rows_with_it(
    kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    marker = tmp_path / "died"

    def dies_once(part: Any) -> Any:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    scan = kafka.scan(filled, value=ottla.text())
    frame = scan.to_dask(parts=4)
    frame = frame.map_partitions(dies_once, meta=frame._meta)
    options = {"scheduler": "processes", "num_workers": 2}
    # Dask's own pool does not try again; it does not hand out the rest either.
    with pytest.raises(BrokenProcessPool):
        frame.compute(**options)
    assert rows(frame.compute(**options)) == sorted(scan.to_polars().select(ROW).rows())


def test_each_task_writes_its_part(kafka: ottla.Client, filled: str, name: str) -> None:
    target, address = f"{name}-copy", kafka.bootstrap_servers

    def write(part: Any) -> Any:
        with ottla.connect(address) as client:
            client.write(target, part[["partition", "value"]], key="value")
        return part[["offset"]]

    frame = kafka.scan(filled, value=ottla.text()).to_dask(parts=4)
    written = frame.map_partitions(write, meta=frame._meta[["offset"]])
    assert len(written.compute(scheduler="processes", num_workers=2)) == 40
    copies = kafka.scan(target, value={"partition": "int64", "value": "utf8"}).to_polars()
    wanted = kafka.scan(filled, value=ottla.text()).to_polars()
    assert sorted(copies.select("partition", "value").rows()) == sorted(
        wanted.select("partition", "value").rows()
    )
