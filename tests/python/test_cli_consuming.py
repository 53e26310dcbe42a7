"""Consuming on the command line as a member of a group: nothing is committed that could be lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl
import pytest

import ottla
from processes import BrokerProcess, installed_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ottla.typing import GroupProtocol

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def kafka() -> Iterator[ottla.Client]:
    """A client of a broker with a topic of ten records."""
    with ottla.Broker() as broker:
        client = broker.client()
        client.create_topic("orders", partitions=1)
        client.write("orders", pl.DataFrame({"i": range(10)}))
        yield client


class Consuming:
    """``ottla consume --group etl`` into a file, until it has taken over all ten records."""

    def __init__(self, kafka: ottla.Client, output: str, file: Path) -> None:
        arguments = ["consume", "orders", "--group", "etl", "--from-beginning"]
        arguments += ["--output", output, "--output-file", str(file), "--timeout-ms", "600000"]
        environment = {
            **os.environ,
            "OTTLA_BOOTSTRAP_SERVER": kafka.bootstrap_servers,
            "OTTLA_LOG": "ottla::cli=debug",
        }
        self.process = subprocess.Popen(
            [_PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stderr is not None
        taken, said = 0, []
        for line in self.process.stderr:
            said.append(line)
            if "rows taken over" in line:
                taken += int(line.rsplit("rows=", 1)[1])
            if taken == 10:
                return
        self.end(signal.SIGKILL)
        pytest.fail(f"it ended after {taken} rows: {said}")

    def end(self, how: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(how)
        self.process.communicate(timeout=30)
        return self.process.returncode


def _committed(kafka: ottla.Client) -> int | None:
    [partition] = kafka.groups["etl"].partitions
    return partition.committed_offset


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["parquet", "table", "csv", "json"])
def test_a_signal_finishes_the_file_and_commits_it(
    kafka: ottla.Client, tmp_path: Path, output: str, how: signal.Signals
) -> None:
    file = tmp_path / "rows"
    assert Consuming(kafka, output, file).end(how) == 0
    assert _committed(kafka) == 10
    if output == "parquet":
        rows = pl.read_parquet(file)["value"].to_list()
    elif output == "csv":
        rows = pl.read_csv(file)["value"].to_list()
    elif output == "json":
        rows = [json.loads(line)["value"] for line in file.read_text().splitlines()]
    else:
        rows = [line for line in file.read_text().splitlines() if '{"i":' in line]
    assert len(rows) == 10


@pytest.mark.parametrize("output", ["parquet", "table", "csv", "json"])
def test_a_killed_program_has_committed_what_is_in_its_file(
    kafka: ottla.Client, tmp_path: Path, output: str
) -> None:
    file = tmp_path / "rows"
    Consuming(kafka, output, file).end(signal.SIGKILL)
    if output in ("parquet", "table"):
        # Without its end, the file is nothing: the group reads the records again.
        assert _committed(kafka) is None
    else:
        assert len(file.read_text().splitlines()) == (11 if output == "csv" else 10)
        assert _committed(kafka) == 10


def _program(kafka: ottla.Client, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OTTLA_BOOTSTRAP_SERVER": kafka.bootstrap_servers,
        "OTTLA_LOG": "info",
        "PYTHONWARNINGS": "ignore::RuntimeWarning",
    }
    return subprocess.Popen(
        [_PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_join_that_takes_long_ends_nothing(kafka: ottla.Client, protocol: GroupProtocol) -> None:
    """Another member keeps its partitions, as it does not poll; the program waits for it."""
    kafka.create_topic("pairs", partitions=2)
    for number in range(10):
        kafka.send("pairs", str(number), partition=number % 2)
    with kafka.consumer("pairs", group_id="etl", group_protocol=protocol) as holder:
        while len(holder.assignment) < 2:
            holder.poll(1.0)
        words = ["consume", "pairs", "--group", "etl", "--group-protocol", protocol]
        joining = _program(kafka, *words, "--from-beginning", "--timeout-ms", "200")
        assert joining.stderr is not None
        said = []
        for line in joining.stderr:
            said.append(line)
            if "waiting for" in line:
                break
        assert joining.poll() is None, said
        assert "joining group etl, which has 1 member\n" in said
    written, rest = joining.communicate(timeout=40)
    assert joining.returncode == 0, [*said, rest]
    assert len(written.splitlines()) == 10, [*said, rest]
    assert "group etl has 1 member" in rest
    assert "no record arrived for 200 ms" in rest
    assert sum(one.committed_offset or 0 for one in kafka.groups["etl"].partitions) == 10


def test_a_member_without_partitions_ends_when_nothing_arrives(kafka: ottla.Client) -> None:
    with kafka.consumer("orders", group_id="etl") as holder, ThreadPoolExecutor(1) as threads:
        stop = threading.Event()

        def poll() -> None:
            while not stop.is_set():
                holder.poll(0.1)

        polling = threads.submit(poll)
        words = ["consume", "orders", "--group", "etl", "--timeout-ms", "200"]
        done = _program(kafka, *words)
        _, said = done.communicate(timeout=40)
        stop.set()
        polling.result(30)
    assert done.returncode == 0, said
    assert "group etl has 2 members" in said


def test_a_broker_that_is_gone_is_no_orderly_end(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data")
    with ottla.connect(broker.bootstrap) as kafka:
        kafka.create_topic("orders", partitions=1)
        kafka.send("orders", "one")
        words = ["consume", "orders", "--from-beginning", "--timeout-ms", "3000"]
        reading = _program(kafka, *words)
    assert reading.stdout is not None
    assert reading.stdout.readline() == "one\n"
    broker.kill()
    _, said = reading.communicate(timeout=40)
    assert reading.returncode == 5, said
    assert broker.bootstrap in said
