"""Members and the broker are killed while a group works; nothing committed is lost."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition

from groups.harness import BROKER_OPTIONS, Kind
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from groups.harness import Group

KILL_SECONDS = 60
KILL_EVERY_S = 4.0


@pytest.mark.timeout(180)
def test_a_rolling_kill_of_members_loses_no_record(make_group: Callable[..., Group]) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    draw = random.Random(seed)
    kinds = [
        Kind("confluent", "cooperative-sticky"),
        Kind("ottla", "cooperative-sticky"),
        Kind("kafka-python", "cooperative-sticky"),
    ]
    group = make_group()
    for kind in kinds:
        group.join(kind)
    stop = threading.Event()

    def produce() -> None:
        while not stop.wait(0.2):
            group.produce(20)

    producing = threading.Thread(target=produce)
    producing.start()
    try:
        end = time.monotonic() + KILL_SECONDS
        while time.monotonic() < end:
            victim = draw.choice(group.members)
            victim.kill()
            group.join(victim.kind)
            stop.wait(KILL_EVERY_S)
    finally:
        stop.set()
        producing.join()
    group.wait(f"every record was handed out (seed {seed})", group.has_seen_all, 60)
    print(f"{len(group.seen)} records, {group.duplicates()} of them again after a lost commit")
    for member in list(group.members):
        member.close()


def committed(group: Group) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": group.bootstrap, "group.id": group.name})
    wanted = [TopicPartition(group.topic, index) for index in range(group.partitions)]
    found = {part.partition: part.offset for part in consumer.committed(wanted, timeout=30)}
    consumer.close()
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "kind",
    [
        Kind("confluent", "cooperative-sticky"),
        Kind("confluent", "uniform", "consumer"),
        Kind("ottla", "range"),
        Kind("ottla", "uniform", "consumer"),
    ],
    ids=str,
)
def test_a_killed_broker_loses_no_commit_and_members_go_on(
    tmp_path: Path, make_group: Callable[..., Group], kind: Kind
) -> None:
    options = [word for item in BROKER_OPTIONS.items() for word in ("-o", "=".join(item))]
    broker = BrokerProcess(tmp_path / "data", *options)
    try:
        group = make_group(address=broker.bootstrap)
        group.join(kind)
        group.join(kind)
        group.wait("both members own partitions", group.is_divided)
        for _ in range(3):
            group.produce(100)
            group.wait("every record was handed out", group.has_seen_all)
            before = committed(group)
            broker.kill()
            broker = BrokerProcess(tmp_path / "data", *options, port=broker.port)
            after = committed(group)
            assert all(after[index] >= offset for index, offset in before.items())
        group.produce(100)
        group.wait("the members go on by themselves", group.has_seen_all, 60)
        group.end()
    finally:
        assert broker.stop() == 0, broker.stderr()
