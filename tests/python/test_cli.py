"""The command line as a program: what it prints, what it writes and how it ends.

Every case runs with the console script of the installed package and, where ``OTTLA_DEBUG_BIN``
names one, with the plain binary of ``cargo build``: they must not differ.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import shlex
import socket
import subprocess
import threading
import uuid
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet
import pytest

import ottla
from processes import BrokerProcess, Program, free_ports, installed_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAMS = {"script": installed_program(), "binary": os.environ.get("OTTLA_DEBUG_BIN", "")}

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for all cases, as a program."""
    process = BrokerProcess(tmp_path_factory.mktemp("cli") / "data")
    yield process
    assert process.stop() == 0, process.stderr()


@pytest.fixture(params=["script", "binary"])
def program(request: pytest.FixtureRequest, server: BrokerProcess) -> Program:
    """Each program in turn."""
    path = _PROGRAMS[request.param]
    if not path:
        pytest.skip("OTTLA_DEBUG_BIN names no binary of cargo build")
    return Program(path, server.bootstrap)


@pytest.fixture
def topic(program: Program, name: str) -> str:
    """A topic with two partitions that no other case uses."""
    unique = f"cli-{name}"
    program.run("topics", "create", unique, "--partitions", "2")
    return unique


def test_topics_are_altered(program: Program, topic: str) -> None:
    changes = ["--partitions", "3", "--config", "retention.ms=5000", "--config", "segment.ms=70000"]
    assert "altered" in program.run("topics", "alter", topic, *changes).stdout
    program.run("topics", "alter", topic, "--delete-config", "segment.ms")
    [described] = program.json("topics", "describe", topic, "--output", "json")
    assert len(described["partitions"]) == 3
    assert described["configs"] == {"retention.ms": "5000"}
    fewer = program.run("topics", "alter", topic, "--partitions", "1", status=1)
    assert topic in fewer.stderr
    assert "INVALID_PARTITIONS" in fewer.stderr


def test_a_topic_is_described_with_offsets_and_sizes(program: Program, topic: str) -> None:
    lines = "".join(f"{number}\n" for number in range(10))
    program.run("produce", topic, "--partition", "1", stdin=lines)
    [described] = program.json("topics", "describe", topic, "--output", "json")
    empty, filled = described["partitions"]
    assert [empty[one] for one in ("start", "end", "records_at_most")] == [0, 0, 0]
    assert [filled[one] for one in ("start", "end", "records_at_most")] == [0, 10, 10]
    assert filled["last_stable_offset"] == 10
    assert filled["fewer_records_by"] == []
    assert empty["size_bytes"] == 0
    assert filled["size_bytes"] > 10
    assert filled["replica_size_bytes"] == {"1": filled["size_bytes"]}
    assert described["broker_configs"]["min.insync.replicas"] == "1"
    told = program.run("topics", "describe", topic).stdout
    assert "records 10  size" in told
    assert "min.insync.replicas=1" in told
    assert "≤" not in told


def test_a_number_of_records_may_be_a_bound(
    program: Program, server: BrokerProcess, topic: str
) -> None:
    lines = "".join(f"{number}\n" for number in range(3))
    program.run("produce", topic, "--partition", "0", stdin=lines)
    with ottla.connect(server.bootstrap) as kafka, kafka.transactional(topic) as producer:
        with producer.transaction() as done:
            done.send(topic, "x", partition=1).result(30)
        [described] = program.json("topics", "describe", topic, "--output", "json")
        plain, transactional = described["partitions"]
        assert (plain["records_at_most"], plain["fewer_records_by"]) == (3, [])
        # A record, and the marker of its transaction.
        assert transactional["records_at_most"] == 2
        assert transactional["fewer_records_by"] == ["transactions"]
        open_one = producer.transaction().__enter__()
        open_one.send(topic, "y", partition=0).result(30)
        [described] = program.json("topics", "describe", topic, "--output", "json")
        held = described["partitions"][0]
        assert (held["end"], held["last_stable_offset"]) == (4, 3)
        assert held["fewer_records_by"] == ["transactions"]
        told = program.run("topics", "describe", topic).stdout
        assert "records ≤ 6" in told
        assert "≤ at most: transactions" in told
    program.run("topics", "alter", topic, "--config", "cleanup.policy=compact")
    [described] = program.json("topics", "describe", topic, "--output", "json")
    reasons = [partition["fewer_records_by"] for partition in described["partitions"]]
    assert reasons == [["compaction", "transactions"]] * 2


def test_settings_are_described_and_altered(program: Program, topic: str) -> None:
    entity = ["--topic", topic]
    program.run("configs", "alter", *entity, "--add-config", "max.message.bytes=4096")
    entry, cluster = program.json("configs", "describe", *entity, "--output", "json")
    assert entry["name"] == "max.message.bytes"
    assert entry["value"] == "4096"
    assert entry["source"] == "DYNAMIC_TOPIC_CONFIG"
    # The cluster began with it, as in Apache Kafka.
    assert cluster["name"] == "min.insync.replicas"
    assert cluster["source"] == "DYNAMIC_DEFAULT_BROKER_CONFIG"
    every = program.json("configs", "describe", *entity, "--all", "--output", "json")
    values = {entry["name"]: entry["value"] for entry in every}
    assert values["cleanup.policy"] == "delete"
    assert len(values) > 25
    table = program.run("configs", "describe", *entity, "--all", "--documentation").stdout
    assert "cleanup.policy" in table
    program.run("configs", "alter", *entity, "--delete-config", "max.message.bytes")
    assert program.json("configs", "describe", *entity, "--output", "json") == [cluster]
    own = program.json("configs", "describe", "--broker", "1", "--all", "--output", "json")
    assert {"name", "value", "source", "read_only"} <= set(own[0])
    wrong = ["--add-config", "retention.ms=soon"]
    refused = program.run("configs", "alter", *entity, *wrong, status=1)
    assert "retention.ms" in refused.stderr
    program.run("configs", "alter", *entity, "--validate-only", "--add-config", "segment.ms=70000")
    assert program.json("configs", "describe", *entity, "--output", "json") == [cluster]


def test_a_scan_tells_its_offsets(program: Program, topic: str) -> None:
    lines = "".join(f"{number}\n" for number in range(10))
    program.run("produce", topic, "--partition", "1", stdin=lines)
    offsets = program.json("scan", topic, "--offsets")
    assert offsets["topic"] == topic
    assert offsets["partitions"] == {
        "0": {"start": 0, "end": 0},
        "1": {"start": 0, "end": 10},
    }
    assert offsets["checkpoint"] == {topic: {"0": 0, "1": 10}}
    limited = program.run("scan", topic, "--offsets", "--max-messages", "4", status=2)
    assert "cannot tell where --max-messages would stop" in limited.stderr
    checkpoint = json.dumps({topic: {"1": 8}})
    news = program.json("scan", topic, "--from", checkpoint, "--offsets")
    assert news["partitions"] == {"0": {"start": 0, "end": 0}, "1": {"start": 8, "end": 10}}
    everything = program.json("scan", topic, "--from", "1969-12-31T23:59:59.999Z", "--offsets")
    assert everything["partitions"] == offsets["partitions"]
    bounded = program.json("scan", topic, "--from", "last:3", "--partition", "1", "--offsets")
    assert bounded["partitions"] == {"1": {"start": 7, "end": 10}}
    values = program.run(
        "scan", topic, "--from", "7", "--partition", "1", "--output", "json"
    ).stdout
    records = [json.loads(line) for line in values.splitlines()]
    assert [(record["offset"], record["value"]) for record in records] == [
        (7, "7"),
        (8, "8"),
        (9, "9"),
    ]


def test_values_that_are_no_json_objects_are_told(program: Program, topic: str) -> None:
    program.run("produce", topic, "--partition", "0", stdin="hello\n[1]\n")
    scan = ("scan", topic, "--value-format", "json", "--output", "json")
    failed = program.run(*scan, status=3)
    assert f"{topic}-0 at offset 0: the value is not JSON, see position 0: hello" in failed.stderr
    told = program.run(*scan, "--on-error", "column").stdout.splitlines()
    errors = [json.loads(line)["error"] for line in told]
    assert ["not JSON" in errors[0], "a JSON array" in errors[1]] == [True, True]


def test_parquet_holds_what_was_written(program: Program, topic: str, tmp_path: Path) -> None:
    rows = [{"id": number, "name": f"name {number}", "on": number % 2 == 0} for number in range(50)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    program.run("produce", topic, "--partition", "0", stdin=lines)
    typed = tmp_path / "typed.parquet"
    to_typed = ["--output", "parquet", "--output-file", str(typed), "--value-format", "json"]
    program.run("scan", topic, *to_typed)
    table = pyarrow.parquet.read_table(typed)
    assert table.select(["id", "name", "on"]).to_pylist() == rows
    assert table["offset"].to_pylist() == list(range(50))
    assert set(table["partition"].to_pylist()) == {0}
    assert str(table.schema.field("timestamp").type) == "timestamp[ms, tz=UTC]"
    raw = tmp_path / "raw.parquet"
    program.run("scan", topic, "--output", "parquet", "--output-file", str(raw))
    values = pyarrow.parquet.read_table(raw)["value"].to_pylist()
    assert [json.loads(value) for value in values] == rows
    # And back in.
    program.run("topics", "create", f"{topic}-copy", "--partitions", "1")
    program.run("produce", f"{topic}-copy", "--file", str(raw), "--value", "value")
    copied = program.run("scan", f"{topic}-copy", "--output", "value").stdout.splitlines()
    assert [json.loads(value) for value in copied] == rows


def test_files_are_written_as_they_are_or_refused(
    program: Program, topic: str, tmp_path: Path
) -> None:
    def produced(name: str, data: bytes, *options: str) -> list[str]:
        path = tmp_path / name
        path.write_bytes(data)
        before = len(program.run("scan", topic, "--output", "value").stdout.splitlines())
        program.run("produce", topic, "--partition", "0", "--file", str(path), *options)
        return program.run("scan", topic, "--output", "value").stdout.splitlines()[before:]

    rows = b"zip,phone,n\n01234,+1555,7\n"
    text = '{"zip":"01234","phone":"+1555","n":"7"}'
    assert produced("a.csv", rows) == [text]
    assert produced("a.csv.gz", gzip.compress(rows)) == [text]
    assert produced("b.csv", rows, "--schema", "n=int64") == [text.replace('"7"', "7")]
    assert produced("a.jsonl.gz", gzip.compress(b'{"a": 1}\n')) == ['{"a": 1}']
    assert produced("lines.gz", gzip.compress(b"one\ntwo\n")) == ["one", "two"]
    xz = tmp_path / "a.csv.xz"
    xz.write_bytes(lzma.compress(rows))
    refused = program.run("produce", topic, "--file", str(xz), status=3)
    assert "compressed with xz" in refused.stderr
    table = pyarrow.table({"at": [datetime(2013, 1, 1, tzinfo=timezone.utc)]})
    pyarrow.parquet.write_table(table, tmp_path / "old.parquet")
    old = program.run(
        "produce", topic, "--file", str(tmp_path / "old.parquet"), "--timestamp", "at"
    )
    assert "retention.ms=604800000 (7 days)" in old.stderr
    assert "--config retention.ms=-1" in old.stderr


def test_an_empty_line_of_csv_is_a_null_or_refused(
    program: Program, topic: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    pl.DataFrame({"a": ["1", None, "3"]}).write_csv(path)
    produce = ["produce", topic, "--partition", "0", "--file", str(path)]
    program.run(*produce)
    rows = program.run("scan", topic, "--output", "value").stdout.splitlines()
    assert rows == ['{"a":"1"}', '{"a":null}', '{"a":"3"}']
    path.write_text("a,b\n1,2\n\n3,4\n\n")
    refused = program.run(*produce, status=3)
    assert "a.csv, line 3: it is empty, but the header names 2 columns" in refused.stderr
    path.write_text("a,b\n1,2\n\n")
    program.run(*produce)
    assert len(program.run("scan", topic, "--output", "value").stdout.splitlines()) == 4


def test_errors_of_input_name_the_line_and_an_option(
    program: Program, topic: str, tmp_path: Path
) -> None:
    def refusal(name: str, text: str, *options: str, status: int = 3) -> str:
        path = tmp_path / name
        path.write_text(text)
        produce = ("produce", topic, "--file", str(path), *options)
        return program.run(*produce, status=status).stderr

    rows = 'n,t\n1,"two\nlines"\nabc,x\n'
    told = 'a.csv, line 4: column "n": abc is not an int64'
    assert told in refusal("a.csv", rows, "--schema", "n=int64")
    times = "t,n\n2026-01-01T00:00:00Z,1\nsoon,2\n"
    told = refusal("a.csv", times, "--timestamp", "t", status=2)
    assert "--schema t=timestamp, or --infer" in told
    told = 'line 3: column "t": soon is not an ISO 8601 time'
    assert told in refusal("a.csv", times, "--timestamp", "t", "--schema", "t=timestamp")
    early = 't,n\n2026-01-01T00:00:00Z,"1\n"\n1901-01-01T00:00:00Z,2\n'
    told = refusal("a.csv", early, "--timestamp", "t", "--schema", "t=timestamp")
    assert "a.csv, line 4: " in told
    assert "row " not in told
    assert "line 2: the value is not JSON, see position 0: oops" in refusal("a.json", "{}\noops\n")
    assert "line 2: it is JSON, but not an object: [1]" in refusal("a.json", "{}\n[1]\n")
    assert "line 2: it is empty" in refusal("a.json", "{}\n\n{}\n")
    pyarrow.parquet.write_table(pyarrow.table({"x": [float("nan")]}), tmp_path / "a.parquet")
    told = program.run("produce", topic, "--file", str(tmp_path / "a.parquet"), status=3).stderr
    assert "JSON has no NaN; replace it in the file" in told
    assert "json(" not in told
    lost = program.run("scan", topic, "--from", '{"0":99}', status=6).stderr
    assert "tolerate the loss with --on-data-loss warn" in lost


def test_bench_measures_over_tcp(program: Program) -> None:
    small = ["--records", "2000", "--record-size", "50", "--repeat", "1"]
    result = program.json("bench", "--tcp", *small, "--output", "json")
    assert result["route"] == "tcp"
    assert [run["what"] for run in result["runs"]] == ["write", "scan"]
    assert all(run["records"] == 2000 and run["records_per_second"] > 0 for run in result["runs"])


@posix
@pytest.mark.parametrize("command", ["scan TOPIC --output value", "consume TOPIC --from-beginning"])
def test_a_reader_that_leaves_ends_it_quietly(program: Program, topic: str, command: str) -> None:
    lines = "".join(f"a line that is long enough to fill a pipe {n}\n" for n in range(20_000))
    program.run("produce", topic, "--partition", "0", stdin=lines)
    ours = f"{shlex.quote(program.path)} {command.replace('TOPIC', topic)}"
    done = subprocess.run(
        ["bash", "-c", f'{ours} | head -1; echo "status ${{PIPESTATUS[0]}}"'],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env=program.environment,
    )
    assert done.stdout.splitlines() == ["a line that is long enough to fill a pipe 0", "status 0"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan", "no-such-topic"], "create it first"),
        (["topics", "delete", "no-such-topic"], "no-such-topic"),
        (["topics", "create", "a/b"], "INVALID_TOPIC_EXCEPTION"),
        (["broker", "start", "--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_what_fails_ends_with_1_and_one_line(
    program: Program, arguments: list[str], says: str
) -> None:
    failed = program.run(*arguments, status=1)
    assert failed.stdout == ""
    [line] = failed.stderr.splitlines()
    assert line.startswith("ottla: ")
    assert says in line


def test_a_broker_that_is_not_there_is_named(program: Program) -> None:
    [port] = free_ports(1)
    failed = program.run("topics", "list", "--bootstrap-server", f"127.0.0.1:{port}", status=5)
    assert f"127.0.0.1:{port}" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["topics", "create"],
        ["topics", "alter", "t"],
        ["scan", "t", "--output", "xml"],
        ["scan", "t", "--from", "nonsense"],
        ["scan", "t", "-X", "no.such.setting=1"],
        ["configs", "describe"],
        ["broker", "start", "--in-memory", "-o", "no.such.setting=1"],
    ],
)
def test_wrong_arguments_end_with_2(program: Program, arguments: list[str]) -> None:
    failed = program.run(*arguments, status=2)
    assert failed.stdout == ""
    assert failed.stderr != ""


def test_help_and_version_are_no_failures(program: Program) -> None:
    told = program.run("--help").stdout
    assert "Usage: ottla" in told
    assert "Exit status:" in told
    assert program.run("--version").stdout.startswith("ottla ")
    assert "--offsets" in program.run("scan", "--help").stdout


def test_a_directory_in_use_is_refused_with_who_has_it(
    program: Program, server: BrokerProcess
) -> None:
    directory = server.data_dir
    start = [
        "broker",
        "start",
        "--data-dir",
        str(directory),
        "--listeners",
        "PLAINTEXT://127.0.0.1:0",
    ]
    failed = program.run(*start, status=1)
    assert failed.stdout == ""
    [line] = [line for line in failed.stderr.splitlines() if line.startswith("ottla: ")]
    assert str(directory) in line
    assert f"process {server.process.pid}" in line
    assert "another data directory" in line


def test_a_broker_says_ready_and_stops_cleanly(program: Program, tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "data", program=program.path)
    assert process.bootstrap == f"127.0.0.1:{process.port}"
    assert process.stop() == 0, process.stderr()
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


@posix
def test_a_broker_opens_as_many_files_as_the_system_allows(
    program: Program, tmp_path: Path
) -> None:
    import resource

    soft, partitions = 64, 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    process = BrokerProcess(tmp_path / "data", program=program.path, preexec=few)
    try:
        with ottla.connect(process.bootstrap) as kafka:
            kafka.create_topic("wide", partitions=partitions)
            for partition in range(partitions):
                kafka.send_async("wide", "x", partition=partition)
            kafka.flush()
            assert kafka.scan("wide").count() == partitions
        assert process.stop() == 0, process.stderr()
    finally:
        process.kill()


def test_a_missing_topic_is_named_with_the_nearest(program: Program) -> None:
    program.run("topics", "create", "nearest-orders", "--if-not-exists")
    for arguments in (
        ("scan", "nearest-order"),
        ("consume", "nearest-order", "--max-messages", "1"),
        ("topics", "describe", "nearest-order"),
        ("topics", "delete", "nearest-order"),
        ("topics", "alter", "nearest-order", "--partitions", "3"),
    ):
        failed = program.run(*arguments, status=1)
        assert "there is no topic nearest-order" in failed.stderr, arguments
        assert "nearest-orders" in failed.stderr.replace("nearest-order;", ""), arguments


def test_what_was_acknowledged_of_lines_is_counted(program: Program) -> None:
    topic = f"counted-{uuid.uuid4()}"
    lines = '{"id": 1}\n{"id": 2}\nthree\n'
    failed = program.run("produce", topic, "--format", "json", stdin=lines, status=3)
    assert "line 3: the value is not JSON" in failed.stderr
    assert "2 records were acknowledged" in failed.stderr
    assert len(program.run("scan", topic, "--output", "value").stdout.splitlines()) == 2


def test_what_does_not_decode_names_the_option(program: Program) -> None:
    program.run("produce", "undecodable", stdin="no JSON\n")
    failed = program.run("scan", "undecodable", "--value-format", "json", status=3)
    assert "--on-error offers" in failed.stderr
    assert "on_error=" not in failed.stderr


class Starting:
    """An address that answers as a broker does that has not started: with versions alone."""

    def __init__(self, broker: str) -> None:
        host, port = broker.split(",", maxsplit=1)[0].rsplit(":", 1)
        self.broker = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(self.broker) as broker,
            client.makefile("rb") as requests,
            broker.makefile("rb") as answers,
        ):
            while size := requests.read(4):
                request = requests.read(int.from_bytes(size, "big"))
                if int.from_bytes(request[:2], "big") == 18:  # ApiVersions
                    broker.sendall(size + request)
                    size = answers.read(4)
                    client.sendall(size + answers.read(int.from_bytes(size, "big")))


def test_doctor_tells_a_broker_that_starts_from_one_that_wants_tls(
    program: Program, server: BrokerProcess
) -> None:
    starting = Starting(server.bootstrap)
    with starting.listener:
        done = program.run("doctor", starting.address, status=4)
    assert "FAIL metadata" in done.stdout
    assert "most likely it is still starting" in done.stdout
    assert "TLS" not in done.stdout


def test_csv_is_not_rounded_and_not_guessed(program: Program, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    produce = ["produce", topic, "--partition", "0", "--file", str(path)]
    path.write_text("n,m\n9007199254740993,1\n0.5,2.5\n")
    program.run(*produce, "--infer")
    rows = program.run("scan", topic, "--output", "value").stdout.splitlines()
    assert rows == ['{"n":"9007199254740993","m":1.0}', '{"n":"0.5","m":2.5}']
    path.write_text("n,m\n" + "0.5,1\n" * 1000 + "9007199254740993,1\n")
    refused = program.run(*produce, "--infer", status=3)
    told = 'a.csv, line 1002: column "n": 9007199254740993 is not equal to a float64'
    assert told in refused.stderr
    path.write_text('n,m\n"x"y,1\n')
    refused = program.run(*produce, status=3)
    assert "a.csv, line 2: field 1 goes on behind its closing quote" in refused.stderr
