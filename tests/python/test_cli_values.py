"""Values on the command line: Avro, Protobuf and Arrow IPC, schemas, dead letters, completion."""

from __future__ import annotations

import io
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import ottla
from processes import Program, installed_program
from registries import Registry

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()

POINT = {
    "type": "record",
    "name": "Point",
    "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "double"]}],
}
PROTO = 'syntax = "proto3"; message Point { int32 x = 1; optional double y = 2; }'
ROWS = [{"x": 1, "y": 0.5}, {"x": 2, "y": None}]


@pytest.fixture
def program(broker: ottla.Broker) -> Program:
    return Program(_PROGRAM, broker.bootstrap_servers)


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def rows(program: Program, topic: str, *options: str) -> list[Any]:
    columns = ("--columns", "x,y", "--output", "json")
    return lines(program.run("scan", topic, *columns, *options).stdout)


def test_avro_is_written_and_read_with_a_schema_in_a_file(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=1)
    schema = tmp_path / "point.avsc"
    schema.write_text(json.dumps(POINT))
    avro = ("--value-format", "avro", "--value-schema", str(schema))
    objects = "".join(json.dumps(row) + "\n" for row in ROWS)
    program.run("produce", name, "--format", "json", *avro, stdin=objects)
    assert kafka.scan(name, value=ottla.avro(POINT)).to_polars()["x"].to_list() == [1, 2]
    assert rows(program, name, *avro) == ROWS
    file = tmp_path / "more.csv"
    file.write_text("x,y\n3,1.5\n")
    typed = ("--schema", "x=int64,y=float64")
    program.run("produce", name, "--file", str(file), *typed, *avro)
    assert rows(program, name, *avro)[2:] == [{"x": 3, "y": 1.5}]
    # What is not of the schema is refused, with its line, and nothing is rounded.
    for bad, says in (
        ('{"x": 1.5, "y": null}', "1.5"),
        ('{"x": 1, "z": 2}', '"z"'),
        ("[1]", "array"),
        ("", "it is empty"),
    ):
        text = f'{{"x": 4, "y": null}}\n{bad}\n'
        told = program.run("produce", name, "--format", "json", *avro, stdin=text, status=3).stderr
        assert "line 2: " in told, told
        assert says in told, told
    refused = program.run("scan", name, "--value-format", "avro", status=2).stderr
    assert "--schema-registry URL or --value-schema FILE" in refused


def test_protobuf_is_written_and_read_with_a_schema_in_a_file(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=1)
    schema = tmp_path / "point.proto"
    (tmp_path / "y.proto").write_text('syntax = "proto3"; message Y { optional double y = 2; }')
    schema.write_text(PROTO.replace("message", 'import "y.proto"; message'))
    protobuf = ("--value-format", "protobuf", "--value-schema", str(schema))
    objects = "".join(json.dumps(row) + "\n" for row in ROWS)
    program.run("produce", name, "--format", "json", *protobuf, stdin=objects)
    read = kafka.scan(name, value=ottla.protobuf(PROTO), columns=["x", "y"])
    assert read.to_polars().to_dicts() == ROWS
    assert rows(program, name, *protobuf) == ROWS
    named = program.run("scan", name, *protobuf, "--message", "Line", status=2).stderr
    assert "Line" in named
    assert "point.proto" in named


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_a_registry_has_the_schemas(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path, kind: str
) -> None:
    kafka.create_topic(name, partitions=1)
    table = pa.table({"x": pa.array([1, 2], pa.int32()), "y": pa.array([0.5, None], pa.float64())})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with Registry(user=("me", "secret")) as registry:
        program.environment["OTTLA_SCHEMA_REGISTRY_USER"] = "me:secret"
        values = ("--value-format", kind, "--schema-registry", registry.url)
        file = ("--file", str(tmp_path / "rows.parquet"))
        unknown = program.run("produce", name, *file, *values, "--no-auto-register", status=2)
        assert "--subject" in unknown.stderr
        program.run("produce", name, *file, *values)
        assert list(registry.subjects) == [f"{name}-value"]
        assert rows(program, name, *values) == ROWS
        assert rows(program, name, *values, "--columns-from", "first") == ROWS
        # JSON takes the types of the schema that is there.
        program.run("produce", name, "--format", "json", *values, stdin='{"x": 3, "y": 4.0}\n')
        assert rows(program, name, *values)[2:] == [{"x": 3, "y": 4.0}]
        missing = program.run("scan", name, *values, "--subject", "other", status=2).stderr
        assert "--subject" in missing
        assert "--columns-from first" in missing
        program.environment["OTTLA_SCHEMA_REGISTRY_USER"] = "me:wrong"
        refused = program.run("scan", name, *values, status=1).stderr
        assert "Unauthorized" in refused or "401" in refused
    program.environment["OTTLA_SCHEMA_REGISTRY_USER"] = "me:secret"
    gone = program.run("scan", name, *values, status=5)
    assert registry.url in gone.stderr


def test_arrow_ipc_comes_out_and_goes_in(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=1)
    table = pa.table({"x": [1, 2, 3], "y": ["a", None, "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    ipc = ("--value-format", "arrow-ipc")
    program.run("produce", name, "--file", str(tmp_path / "rows.parquet"), *ipc)
    assert kafka.scan(name).count() == 1
    columns = ("--columns", "x,y", "--output", "arrow-ipc")
    done = subprocess.run(
        [_PROGRAM, "scan", name, *ipc, *columns],
        capture_output=True,
        check=True,
        timeout=60,
        env=program.environment,
    )
    assert pa.ipc.open_stream(io.BytesIO(done.stdout)).read_all().to_pydict() == table.to_pydict()
    only = program.run("scan", name, *ipc, "--schema", "y=text", "--output", "json").stdout
    assert [row["y"] for row in lines(only)] == ["a", None, "c"]
    assert "x" not in lines(only)[0]
    # A stream without rows still has its columns.
    empty = tmp_path / "empty.arrows"
    to_file = ("--output", "arrow-ipc", "--output-file", str(empty))
    program.run("scan", name, "--from", "latest", *to_file)
    assert "offset" in pa.ipc.open_stream(empty.read_bytes()).schema.names
    program.run("consume", name, "--timeout-ms", "1", *to_file)
    assert "offset" in pa.ipc.open_stream(empty.read_bytes()).schema.names
    member = ("--group", f"{name}-none", "--output", "parquet", "--output-file", str(empty))
    program.run("consume", name, "--timeout-ms", "1", *member)
    assert "offset" in pyarrow.parquet.read_schema(empty).names
    unknown = program.run("consume", name, "--timeout-ms", "1", "--value-format", "json", *to_file)
    assert "nothing has told the columns" in unknown.stderr
    assert empty.read_bytes() == b""
    # Rows of a record are cut, and a group reads the record again.
    group = ("--group", f"{name}-ipc", "--from-beginning", "--max-messages", "2")
    consume = ("consume", name, *ipc, *group, "--columns", "x", "--output", "json")
    assert [row["x"] for row in lines(program.run(*consume).stdout)] == [1, 2]
    [committed] = kafka.groups[f"{name}-ipc"].partitions
    assert committed.committed_offset == 0


def test_the_columns_of_json_may_be_named(program: Program, kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, '{"id": 1, "at": "2026-01-31T12:00:00Z", "more": {}}')
    scan = ("scan", name, "--value-format", "json", "--output", "json")
    wrong = program.run(*scan, "--schema", "id=bool,at=timestamp", status=3)
    assert f"{name}-0 at offset 0" in wrong.stderr
    typed = ("--schema", "id=int64,at=timestamp")
    [row] = lines(program.run(*scan, *typed).stdout)
    assert row["id"] == 1
    assert row["at"].startswith("2026-01-31T12:00:00")
    assert "more" not in row


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("scan", ["--value-schema", "x"], "--value-schema applies to"),
        ("scan", ["--schema-registry", "http://x"], "--schema-registry applies to"),
        ("scan", ["--message", "M", "--value-format", "json"], "--message applies to"),
        ("scan", ["--schema", "a=int64"], "--schema applies to"),
        ("scan", ["--subject", "s"], "--schema-registry"),
        ("scan", ["--dead-letters", "d"], "raw values need no decoding"),
        ("scan", ["--dead-letters", "t", "--value-format", "json"], "names the topic that is read"),
        ("scan", ["--dead-letters", "d", "--on-error", "null"], "cannot be used with"),
        (
            "consume",
            ["--dead-letters", "d", "--value-format", "json", "--output", "json"],
            "needs --schema",
        ),
        ("consume", ["--to", "latest", "--timeout-ms", "5"], "cannot be used with"),
        ("produce", ["--value", "a", "--subject", "s"], "cannot be used with"),
        ("scan", ["--value-format", "avro", "--output", "value"], "--output json"),
        ("scan", ["--schema", "a=int65", "--value-format", "json"], "int65"),
        ("produce", ["--value-format", "avro"], "lines are values as they are"),
        ("produce", ["--format", "json", "--value-format", "arrow-ipc"], "JSON has no types"),
        ("produce", ["--format", "json", "--value-format", "avro"], "values need a schema"),
        ("produce", ["--format", "csv", "--value", "a", "--value-format", "json"], "cannot be"),
        ("produce", ["--exclude", "a"], "--exclude applies to"),
        ("produce", ["--no-infer"], "apply to CSV only"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    program: Program, command: str, arguments: list[str], says: str
) -> None:
    refused = program.run(command, "t", *arguments, stdin="", status=2)
    assert says in refused.stderr
    assert refused.stdout == ""


def test_columns_are_left_out_and_types_are_not_guessed(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=1)
    file = tmp_path / "a.csv"
    file.write_text("id,secret,n\n7,x,1\n")
    produce = ("produce", name, "--file", str(file), "--exclude", "secret")
    program.run(*produce, "--infer", "--no-infer", "--key", "id")
    program.run(*produce, "--no-infer", "--infer")
    values = program.run("scan", name, "--output", "value").stdout.splitlines()
    assert values == ['{"id":"7","n":"1"}', '{"id":7,"n":1}']


@pytest.mark.parametrize("how", ["scan", "consume", "group"])
def test_dead_letters_go_to_their_topic(
    program: Program, kafka: ottla.Client, name: str, how: str
) -> None:
    kafka.create_topic(name, partitions=1)
    for value in ('{"a": 1}', "bad 1", '{"a": 2}', "bad 2", '{"a": 3}'):
        kafka.send(name, value, key="k", headers={"trace": "7"})
    bad = f"{name}-bad"
    options = (
        "--value-format",
        "json",
        "--schema",
        "a=int64",
        "--columns",
        "a",
        "--output",
        "json",
    )
    command = {
        "scan": ("scan", name),
        "consume": ("consume", name, "--from-beginning", "--max-messages", "3"),
        "group": ("consume", name, "--from-beginning", "--group", name, "--max-messages", "3"),
    }[how]
    missing = program.run(*command, *options, "--dead-letters", bad, status=1).stderr
    assert f"there is no topic {bad}" in missing
    kafka.create_topic(bad, partitions=1)
    done = program.run(*command, *options, "--dead-letters", bad)
    assert lines(done.stdout) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert f"2 records did not decode and went to topic {bad}" in done.stderr
    letters = kafka.scan(bad, value="text").to_polars().to_dicts()
    assert [letter["value"] for letter in letters] == ["bad 1", "bad 2"]
    headers = [{one["key"]: one["value"] for one in letter["headers"]} for letter in letters]
    assert [one["ottla.dlq.offset"] for one in headers] == [b"1", b"3"]
    assert all(one["trace"] == b"7" for one in headers)
    if how == "group":
        [partition] = kafka.groups[name].partitions
        assert partition.committed_offset == 5


def test_only_the_dead_letters_before_the_end_are_written(
    program: Program, kafka: ottla.Client, name: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.create_topic(f"{name}-bad", partitions=1)
    for value in ("bad 0", '{"a": 1}', "bad 2", '{"a": 3}', "bad 4"):
        kafka.send(name, value)
    group = ("consume", name, "--from-beginning", "--group", name, "--dead-letters", f"{name}-bad")
    values = ("--value-format", "json", "--schema", "a=int64", "--columns", "a")
    one = (*group, *values, "--output", "json")
    for wanted, letters in (([{"a": 1}], 2), ([{"a": 3}], 2)):
        assert lines(program.run(*one, "--max-messages", "1").stdout) == wanted
        assert kafka.scan(f"{name}-bad").count() >= letters
    bad = kafka.scan(f"{name}-bad", value="text").to_polars()["value"].to_list()
    assert bad[:2] == ["bad 0", "bad 2"]
    assert len(bad) == len(set(bad)), "none twice"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")  # noqa: PTH110
@pytest.mark.parametrize("output", ["value", "table", "json", "csv", "parquet", "arrow-ipc"])
def test_a_full_disk_is_no_wrong_argument(
    program: Program, kafka: ottla.Client, name: str, output: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, "x" * 100_000)
    full = program.run("scan", name, "--output", output, "--output-file", "/dev/full", status=1)
    assert "No space left on device" in full.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_shells_complete(program: Program, shell: str) -> None:
    script = program.run("completion", shell).stdout
    assert "describe" in script
    assert "bootstrap-server" in script
    assert program.run("completion", "csh", status=2).stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="needs bash")
def test_bash_completes_what_the_program_has(program: Program) -> None:
    script = program.run("completion", "bash").stdout
    ask = "\nCOMP_WORDS=(ottla topics d); COMP_CWORD=2; _ottla ottla d topics; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash"], input=script + ask, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["describe", "delete"], done.stderr
