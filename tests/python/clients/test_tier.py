"""Apache Kafka's own consumer and franz-go read a topic of which most is in the tier only.

They read from the beginning, from the middle of a file and by time, with and without aborted
transactions, across the place where the tier ends and the log begins.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from confluent_kafka import Producer

from processes import JavaTools, go_program, kafka_libs
from test_tier_broker import PATIENCE, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPIC = "orders"
COUNT = 600
IN_TRANSACTION = 10
VALUE_CHARACTERS = 8 << 10
FIRST_MS = int(time.time() * 1000) + 30 * 60 * 1000
"""Later than the markers of transactions, which are found by time as records are."""

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"),
    pytest.mark.timeout(300),
]


class Row(NamedTuple):
    """What a consumer sees."""

    offset: int
    timestamp: int
    key: str | None
    value: str
    headers: list[tuple[str, str]]


class Topic(NamedTuple):
    """What was written, and where it is."""

    node: Node
    rows: list[Row]
    """All, in the order of their offsets."""
    aborted: set[int]
    """The offsets of those that nobody is to see who reads what is committed."""
    local_start: int
    file_ends: list[int]

    def seen(self, start: int, isolation: str) -> list[Row]:
        """Return what there is to be seen from an offset on."""
        hidden = self.aborted if isolation == "committed" else set()
        return [row for row in self.rows if row.offset >= start and row.offset not in hidden]


def write(node: Node) -> tuple[list[Row], set[int]]:
    """Write transactions, of which every third is aborted; a marker takes an offset, too."""
    config = {"bootstrap.servers": node.bootstrap, "transactional.id": "writer", "linger.ms": 5}
    producer = Producer(config)
    producer.init_transactions(PATIENCE)
    rows: list[Row] = []
    aborted: set[int] = set()
    for first in range(0, COUNT, IN_TRANSACTION):
        is_aborted = first // IN_TRANSACTION % 3 == 2
        producer.begin_transaction()
        for number in range(first, first + IN_TRANSACTION):
            offset = number + first // IN_TRANSACTION
            noise = random.Random(number).randbytes(VALUE_CHARACTERS // 2).hex()
            key = None if number % 5 == 0 else f"key {number % 17}"
            headers = [("n", str(number)), ("of", "all")] if number % 3 == 0 else []
            row = Row(offset, FIRST_MS + 10 * offset, key, f"{number} {noise}", headers)
            producer.produce(
                TOPIC,
                row.value,
                row.key,
                partition=0,
                timestamp=row.timestamp,
                headers=row.headers or None,
            )
            rows.append(row)
            if is_aborted:
                aborted.add(offset)
        if is_aborted:
            # Otherwise they would not be sent at all.
            producer.flush(PATIENCE)
            producer.abort_transaction(PATIENCE)
        else:
            producer.commit_transaction(PATIENCE)
    return rows, aborted


@pytest.fixture(scope="module")
def topic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topic]:
    """A topic that is read by all tests here."""
    node = Node(tmp_path_factory.mktemp("tier"))
    try:
        node.create(TOPIC)
        rows, aborted = write(node)
        local_start = node.wait_tiered(TOPIC)
        ends = [int(path.name.split("-")[1]) + 1 for path in node.files(TOPIC)]
        assert len(ends) >= 3
        assert ends[-1] == local_start
        assert any(row.offset >= local_start for row in rows), "some are in the log only"
        yield Topic(node, rows, aborted, local_start, ends)
    finally:
        node.process.stop()


@pytest.fixture(scope="module")
def tools() -> JavaTools:
    return JavaTools(kafka_libs())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program with franz-go."""
    return str(go_program("reader", tmp_path_factory.mktemp("franz-go")))


def starts(topic: Topic) -> list[int]:
    """Return the first offset, others in the tier, one of them aborted, and those at its end."""
    in_the_middle = topic.file_ends[0] + 37
    aborted = min(offset for offset in topic.aborted if offset > topic.file_ends[1])
    return [0, in_the_middle, aborted, topic.local_start - 1, topic.local_start]


def offsets(tools: JavaTools, topic: Topic, spec: str) -> int:
    """Ask for an offset with kafka-get-offsets; -1 if there is none."""
    server = ("--bootstrap-server", topic.node.bootstrap)
    out = tools.run("get-offsets", *server, "--topic", TOPIC, "--time", spec)
    lines = [line for line in out.splitlines() if line.startswith(f"{TOPIC}:0:")]
    return int(lines[0].rsplit(":", 1)[1]) if lines else -1


def test_kafkas_tool_tells_where_tier_and_log_begin_and_end(topic: Topic, tools: JavaTools) -> None:
    end = topic.rows[-1].offset + 2
    for spec, expected in {
        "-2": 0,
        "earliest-local": topic.local_start,
        "-4": topic.local_start,
        "latest-tiered": topic.local_start - 1,
        "-5": topic.local_start - 1,
        "-1": end,
    }.items():
        assert offsets(tools, topic, spec) == expected, spec


def java_rows(tools: JavaTools, topic: Topic, start: int, isolation: str, count: int) -> list[Row]:
    """Read with kafka-console-consumer."""
    properties = ["print.timestamp", "print.offset", "print.headers", "print.key"]
    out = tools.run(
        "console-consumer",
        *("--bootstrap-server", topic.node.bootstrap, "--topic", TOPIC),
        *("--partition", "0", "--offset", str(start)),
        *("--isolation-level", f"read_{isolation}"),
        *("--max-messages", str(count), "--timeout-ms", "30000"),
        *(part for name in properties for part in ("--formatter-property", f"{name}=true")),
    )
    rows = []
    for line in out.splitlines():
        if not line.startswith("CreateTime:"):
            continue
        created, offset, headers, key, value = line.split("\t")
        pairs = [] if headers == "NO_HEADERS" else [one.split(":") for one in headers.split(",")]
        rows.append(
            Row(
                int(offset.removeprefix("Offset:")),
                int(created.removeprefix("CreateTime:")),
                None if key == "null" else key,
                value,
                [(name, at) for name, at in pairs],
            )
        )
    return rows


def franz_go_rows(
    reader: str, topic: Topic, start: int | str, isolation: str, count: int
) -> list[Row]:
    """Read with franz-go."""
    done = subprocess.run(
        [reader, topic.node.bootstrap, TOPIC, isolation, str(count), str(start)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, (done.stderr, topic.node.log())
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Row(**{**one, "headers": [(name, at) for name, at in one["headers"] or []]}) for one in told
    ]


def check(topic: Topic, start: int, isolation: str, read: Callable[[int], list[Row]]) -> None:
    """Compare what a consumer sees with what was written."""
    expected = topic.seen(start, isolation)
    found = read(len(expected))
    assert [row.offset for row in found] == [row.offset for row in expected]
    assert found == expected


@pytest.mark.parametrize("isolation", ["committed", "uncommitted"])
def test_the_java_consumer_reads_what_was_written(
    topic: Topic, tools: JavaTools, isolation: str
) -> None:
    for start in starts(topic):
        check(
            topic,
            start,
            isolation,
            lambda count, at=start: java_rows(tools, topic, at, isolation, count),  # type: ignore[misc]
        )


def test_the_java_client_finds_records_by_time(topic: Topic, tools: JavaTools) -> None:
    for offset in starts(topic):
        row = next(row for row in topic.rows if row.offset >= offset)
        for timestamp in (row.timestamp - 3, row.timestamp):
            assert offsets(tools, topic, str(timestamp)) == row.offset
    assert offsets(tools, topic, str(topic.rows[-1].timestamp + 1)) == -1


@pytest.mark.parametrize("isolation", ["committed", "uncommitted"])
def test_franz_go_reads_what_was_written(topic: Topic, reader: str, isolation: str) -> None:
    for start in starts(topic):
        for place in (start, f"time:{FIRST_MS + 10 * start}"):
            check(
                topic,
                start,
                isolation,
                lambda count, at=place: franz_go_rows(reader, topic, at, isolation, count),  # type: ignore[misc]
            )
