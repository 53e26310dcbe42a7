"""librdkafka's producers and consumers while the broker is killed.

The checker of the simulation reads their history.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from histories import History, check_history, judge
from processes import BrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "orders"
GROUP = "readers"
PARTITIONS = 3
KILLS = 6


def named(partition: int) -> str:
    return f"{TOPIC}-{partition}"


class Sender(threading.Thread):
    """An idempotent producer, until it is told to stop."""

    def __init__(self, name: str, bootstrap: str, history: History) -> None:
        super().__init__(name=name)
        self.history = history
        self.acknowledged = 0
        self.is_stopping = threading.Event()
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 100,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
                "delivery.timeout.ms": 120_000,
            }
        )

    def run(self) -> None:
        count = 0
        while not self.is_stopping.is_set():
            value, partition = f"{self.name}-{count}", count % PARTITIONS
            self.history.note("send", process=self.name, partition=named(partition), value=value)
            self.producer.produce(TOPIC, value, partition=partition, on_delivery=self.delivered)
            count += 1
            # Not more than the checker needs.
            self.producer.poll(0.002)
        assert self.producer.flush(60) == 0

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            return
        self.acknowledged += 1
        self.history.note(
            "acknowledged",
            process=self.name,
            partition=named(message.partition()),
            value=message.value().decode(),
            offset=message.offset(),
        )


class Member(threading.Thread):
    """A member of the group; it commits after some messages, and leaves when it is told to."""

    def __init__(self, name: str, bootstrap: str, history: History) -> None:
        super().__init__(name=name)
        self.history = history
        self.is_leaving = threading.Event()
        self.positions: dict[int, int] = {}
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 10_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
            }
        )

    def run(self) -> None:
        self.consumer.subscribe(
            [TOPIC], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked
        )
        given = 0
        while not self.is_leaving.is_set():
            message = self.consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            partition = message.partition()
            self.history.note(
                "poll",
                process=self.name,
                partition=named(partition),
                offset=message.offset(),
                value=message.value().decode(),
            )
            self.positions[partition] = message.offset() + 1
            given += 1
            if given % 50 == 0:
                self.commit()
        self.consumer.close()
        self.history.note("ended", process=self.name)

    def assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        while True:
            try:
                begins = consumer.committed(partitions, 5)
                break
            except KafkaException:
                # The broker is down, and comes back.
                time.sleep(0.05)
        for begin in begins:
            begin.offset = max(begin.offset, 0)
            self.positions[begin.partition] = begin.offset
            self.history.note(
                "assigned",
                process=self.name,
                group=GROUP,
                partition=named(begin.partition),
                offset=begin.offset,
            )
        consumer.assign(begins)

    def revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self.positions.pop(one.partition, None)
            partition = named(one.partition)
            self.history.note("revoked", process=self.name, group=GROUP, partition=partition)

    def commit(self) -> None:
        offsets = dict(self.positions)

        def note(op: str) -> None:
            for partition, offset in offsets.items():
                self.history.note(
                    op, process=self.name, group=GROUP, partition=named(partition), offset=offset
                )

        note("commit")
        wanted = [TopicPartition(TOPIC, *one) for one in offsets.items()]
        try:
            told = self.consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException:
            return
        if all(one.error is None for one in told):
            note("committed")


def drain(bootstrap: str, history: History) -> dict[int, int]:
    """Read everything from the start; return the ends."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    )
    ends = {}
    for partition in range(PARTITIONS):
        one = TopicPartition(TOPIC, partition, 0)
        _, ends[partition] = consumer.get_watermark_offsets(one, 30)
        history.note("assign", process="drain", partition=named(partition))
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in ends])
    left = {partition for partition, end in ends.items() if end}
    while left:
        message = consumer.poll(30)
        assert message is not None, "no answer for 30 seconds"
        assert message.error() is None, message.error()
        history.note(
            "poll",
            process="drain",
            partition=named(message.partition()),
            offset=message.offset(),
            value=message.value().decode(),
        )
        if message.offset() + 1 >= ends[message.partition()]:
            left.discard(message.partition())
    consumer.close()
    for partition in ends:
        history.note("drained", process="drain", partition=named(partition))
    return ends


def settle(members: list[Member], ends: dict[int, int], history: History) -> None:
    """Wait until each partition has been read to its end by the one member that has it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        positions = [dict(member.positions) for member in members]
        owners = {
            partition: [of[partition] for of in positions if partition in of] for partition in ends
        }
        if all(owners[partition] == [end] for partition, end in ends.items()):
            for partition in ends:
                history.note("settled", group=GROUP, partition=named(partition))
            return
        time.sleep(0.05)
    pytest.fail(f"the group does not come to rest: {positions}, {ends}")


@pytest.mark.timeout(240)
def test_the_history_of_a_broker_that_is_killed_is_as_it_must_be(tmp_path: Path) -> None:
    check_history()
    moments = random.Random(7)
    broker = BrokerProcess(tmp_path / "data")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
    history = History(tmp_path / "history.jsonl")
    senders = [Sender(name, broker.bootstrap, history) for name in ("p1", "p2")]
    members = [Member(name, broker.bootstrap, history) for name in ("m1", "m2")]
    for thread in [*senders, *members]:
        thread.start()
    try:
        for kill in range(KILLS):
            wanted = sum(one.acknowledged for one in senders) + moments.randrange(50, 300)
            deadline = time.monotonic() + 30
            while sum(one.acknowledged for one in senders) < wanted:
                assert time.monotonic() < deadline, f"no progress; {broker.stderr()}"
                time.sleep(0.001)
            broker.kill()
            broker = BrokerProcess(tmp_path / "data", port=broker.port)
            if kill == KILLS // 2:
                # One leaves, another comes.
                members[0].is_leaving.set()
                members[0].join()
                members[0] = Member("m3", broker.bootstrap, history)
                members[0].start()
        for sender in senders:
            sender.is_stopping.set()
            sender.join()
        settle(members, drain(broker.bootstrap, history), history)
    finally:
        for sender in senders:
            sender.is_stopping.set()
        for member in members:
            member.is_leaving.set()
        for thread in [*senders, *members]:
            thread.join()
    assert broker.stop() == 0

    path = history.close()
    is_good, said = judge(path)
    assert is_good, said
    # The judge would have seen it.
    lines = path.read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    drained = [at for at, one in enumerate(events) if one.get("process") == "drain"]
    polls = [at for at in drained if events[at]["op"] == "poll"]
    for name, forged in {
        "a record that was not read": [
            line
            for at, line in enumerate(lines)
            if events[at].get("value") != events[polls[len(polls) // 2]]["value"]
            or events[at]["op"] != "poll"
        ],
        "a record read twice": [*lines, lines[polls[0]]],
        "a line that was cut off": [*lines, lines[0][:-5]],
    }.items():
        file = tmp_path / "forged.jsonl"
        file.write_text("".join(forged))
        is_good, said = judge(file)
        assert not is_good, f"{name}: {said}"
