"""``ottla transactions``, as a user runs it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from processes import Program, installed_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    import ottla

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()


class Operations(Program):
    """``ottla transactions``, for one broker."""

    def json(self, *arguments: str) -> Any:
        return super().json(*arguments, "--output", "json")


@pytest.fixture
def topic(kafka: ottla.Client, name: str) -> Iterator[str]:
    """A topic with an open transaction, of the id of the same name."""
    kafka.create_topic(name, partitions=2)
    with kafka.transactional(name) as producer:
        open_one = producer.transaction().__enter__()
        open_one.send(name, "hidden", partition=1).result(30)
        kafka.send(name, "behind it", partition=1)
        yield name


@pytest.fixture
def operate(broker: ottla.Broker) -> Operations:
    return Operations(_PROGRAM, broker.bootstrap_servers, "transactions")


def test_an_open_transaction_is_listed_and_described(operate: Operations, topic: str) -> None:
    (listed,) = operate.json("list", "--state", "Ongoing", "--pattern", topic)
    assert (listed["transactional_id"], listed["state"]) == (topic, "Ongoing")
    assert operate.json("list", "--longer-than-ms", "100000000") == []
    (described,) = operate.json("describe", topic)
    assert described["partitions"] == [{"topic": topic, "partition": 1}]
    assert described["producer_id"] == listed["producer_id"]
    assert described["timeout_ms"] == 60_000
    table = operate.run("describe", topic).stdout
    assert f"{topic}-1" in table
    assert "there is no transactional id" in operate.run("describe", "nobody", status=1).stderr
    assert "there is no state" in operate.run("list", "--state", "Nonsense", status=2).stderr


def test_what_its_coordinator_ends_does_not_hang(operate: Operations, topic: str) -> None:
    every = ("--max-transaction-timeout", "0")
    assert operate.json("find-hanging", topic, *every) == []
    refused = operate.run("abort", f"{topic}:1", "--start-offset", "0", status=2).stderr
    assert "does not hang" in refused
    missing = operate.run("abort", f"{topic}:1", "--start-offset", "1", status=2).stderr
    assert "begins at offset 1" in missing


def test_a_scan_says_what_it_leaves_out(
    kafka: ottla.Client, operate: Operations, topic: str
) -> None:
    scan = kafka.scan(topic)
    assert scan.held_back == {1: 2}
    assert "2 held back by an open transaction" in repr(scan)
    assert scan.count() == 0
    assert kafka.scan(topic, isolation_level="read_uncommitted").held_back == {}
    scanning = Program(_PROGRAM, kafka.bootstrap_servers, "scan")
    done = scanning.run(topic, "--output", "value")
    assert "holds back the last 2 offsets" in done.stderr
    assert done.stdout == ""
    done = scanning.run(topic, "--output", "value", "--isolation-level", "read_uncommitted")
    assert done.stdout == "hidden\nbehind it\n"
    # By force, it is torn.
    operate.run("abort", f"{topic}:1", "--start-offset", "0", "--force")
    limit = time.monotonic() + 20
    while kafka.scan(topic).count() != 1 and time.monotonic() < limit:
        time.sleep(0.01)
    assert scanning.run(topic, "--output", "value").stdout == "behind it\n"
