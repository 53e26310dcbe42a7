"""Consuming on the command line as a member of a group: nothing is committed that could be lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import polars as pl
import pytest

import ottla
from processes import installed_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
