"""Ray Data reads a topic in parts, and writes back from each task; workers die meanwhile."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import ray

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]

ROW = ["partition", "offset", "value"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    yield
    ray.shutdown()


def rows(dataset: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in ROW) for row in dataset.take_all())


def all_rows(scan: ottla.Scan) -> list[tuple[Any, ...]]:
    return sorted(scan.to_polars().select(ROW).rows())


def test_a_ray_dataset_has_the_rows_of_the_scan(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled, start={0: 3, 1: 0, 2: 10, 3: 9}, value=ottla.text())
    dataset = scan.to_ray(parts=4)
    assert dataset.schema().names == list(scan.schema)
    kafka.send(filled, "later", partition=0)
    assert rows(dataset) == all_rows(scan)
    assert rows(dataset) == all_rows(scan)
    assert dataset.limit(5).count() == 5
    assert dataset.sum("offset") == sum(offset for _, offset, _ in all_rows(scan))
    nothing = kafka.scan(filled, start="latest", end="latest", value={"n": "int64"})
    assert nothing.to_ray().schema().names == list(nothing.schema)
    assert nothing.to_ray().count() == 0


def test_a_part_that_is_not_there_in_full_is_an_error(kafka: ottla.Client, filled: str) -> None:
    dataset = kafka.scan(filled, value=ottla.text()).to_ray(parts=3)
    kafka.delete_records(filled, {2: 4})
    with pytest.raises(Exception, match="DataLossError"):
        dataset.materialize()


def test_a_worker_that_is_killed_is_replaced(
    kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    marker = tmp_path / "died"

    def dies_once(batch: Any) -> Any:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    scan = kafka.scan(filled, value=ottla.text())
    dataset = scan.to_ray(parts=4).map_batches(dies_once, batch_format="pyarrow")
    assert rows(dataset) == all_rows(scan)
    assert marker.exists()


def test_each_task_writes_its_rows(kafka: ottla.Client, filled: str, name: str) -> None:
    target, address = f"{name}-copy", kafka.bootstrap_servers

    def write(batch: Any) -> Any:
        with ottla.connect(address) as client:
            client.write(target, batch.select(["partition", "value"]), key="value")
        return batch.select(["offset"])

    dataset = kafka.scan(filled, value=ottla.text()).to_ray(parts=4)
    assert dataset.map_batches(write, batch_format="pyarrow").materialize().count() == 40
    copies = kafka.scan(target, value={"partition": "int64", "value": "utf8"}).to_polars()
    wanted = kafka.scan(filled, value=ottla.text()).to_polars()
    assert sorted(copies.select("partition", "value").rows()) == sorted(
        wanted.select("partition", "value").rows()
    )
