"""One member of a group as a program: ``member.py CLIENT OPTIONS-AS-JSON``.

It consumes and commits until it is ended, and prints what happens to it as lines of JSON:
``{"assigned": [...]}``, ``{"revoked": [...]}``, ``{"records": [[partition, offset], ...]}`` (before
they are committed) and ``{"committed": count}``. It ends in order when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

closing = threading.Event()


def say(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def partitions(of: Iterable[Any]) -> list[int]:
    return sorted(one.partition for one in of)


def confluent(options: dict[str, Any]) -> None:
    from confluent_kafka import Consumer

    config = {
        "bootstrap.servers": options["bootstrap"],
        "group.id": options["group"],
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "group.protocol": options["protocol"],
        "topic.metadata.refresh.interval.ms": 1000,
    }
    if options["protocol"] == "classic":
        config["partition.assignment.strategy"] = options["assignor"]
        config["session.timeout.ms"] = options["session_ms"]
        config["heartbeat.interval.ms"] = options["session_ms"] // 5
    elif options["assignor"]:
        config["group.remote.assignor"] = options["assignor"]
    if options["instance"]:
        config["group.instance.id"] = options["instance"]
    consumer = Consumer(config)
    consumer.subscribe(
        [options["topic"]],
        on_assign=lambda _, parts: say(assigned=partitions(parts)),
        on_revoke=lambda _, parts: say(revoked=partitions(parts)),
        on_lost=lambda _, parts: say(revoked=partitions(parts)),
    )
    while not closing.is_set():
        messages = consumer.consume(500, 0.1)
        good = [one for one in messages if one.error() is None]
        if good:
            say(records=[[one.partition(), one.offset()] for one in good])
            try:
                consumer.commit(asynchronous=False)
                say(committed=len(good))
            except Exception as error:  # noqa: BLE001 (a commit may come too late: reported)
                say(commit_failed=str(error))
    consumer.close()


def kafka_python(options: dict[str, Any]) -> None:
    import kafka
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

    class Listener(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            say(revoked=partitions(revoked))

        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            say(assigned=partitions(assigned))

    assignors = {
        "range": RangePartitionAssignor,
        "roundrobin": RoundRobinPartitionAssignor,
        "sticky": StickyPartitionAssignor,
        "cooperative-sticky": CooperativeStickyAssignor,
    }
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=options["bootstrap"],
        group_id=options["group"],
        group_instance_id=options["instance"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=options["session_ms"],
        heartbeat_interval_ms=options["session_ms"] // 5,
        metadata_max_age_ms=1000,
        partition_assignment_strategy=[assignors[options["assignor"]]],
    )
    consumer.subscribe([options["topic"]], listener=Listener())
    while not closing.is_set():
        # kafka-python 3.0.12 forgets a rebalance that it began for new metadata when a poll ends
        # between the leader's assignment and its SyncGroup: it then neither joins nor sends
        # heartbeats again. So a poll outlasts a rebalance.
        polled = consumer.poll(timeout_ms=2000, max_records=500)
        records = [[part.partition, one.offset] for part, all_ in polled.items() for one in all_]
        if records:
            say(records=records)
            try:
                consumer.commit()
                say(committed=len(records))
            except kafka.errors.KafkaError as error:
                say(commit_failed=str(error))
    consumer.close()


def aiokafka(options: dict[str, Any]) -> None:
    asyncio.run(_aiokafka(options))


async def _aiokafka(options: dict[str, Any]) -> None:
    import aiokafka
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

    class Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            say(revoked=partitions(revoked))

        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            say(assigned=partitions(assigned))

    assignors = {
        "range": RangePartitionAssignor,
        "roundrobin": RoundRobinPartitionAssignor,
        "sticky": StickyPartitionAssignor,
    }
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=options["bootstrap"],
        group_id=options["group"],
        group_instance_id=options["instance"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=options["session_ms"],
        heartbeat_interval_ms=options["session_ms"] // 5,
        metadata_max_age_ms=1000,
        partition_assignment_strategy=[assignors[options["assignor"]]],
    )
    consumer.subscribe([options["topic"]], listener=Listener())
    await consumer.start()
    while not closing.is_set():
        polled = await consumer.getmany(timeout_ms=100, max_records=500)
        records = [[part.partition, one.offset] for part, all_ in polled.items() for one in all_]
        if records:
            say(records=records)
            try:
                await consumer.commit()
                say(committed=len(records))
            except aiokafka.errors.KafkaError as error:
                say(commit_failed=str(error))
    await consumer.stop()


def ottla(options: dict[str, Any]) -> None:
    import ottla as kafka

    settings: dict[str, Any] = {"group_protocol": options["protocol"]}
    if options["protocol"] == "classic":
        settings["session_timeout_ms"] = options["session_ms"]
        settings["heartbeat_interval_ms"] = options["session_ms"] // 5
        settings["partition_assignment_strategy"] = [options["assignor"]]
    elif options["assignor"]:
        settings["group_remote_assignor"] = options["assignor"]
    with (
        kafka.connect(options["bootstrap"], config={"metadata.max.age.ms": 1000}) as client,
        client.consumer(
            options["topic"],
            group_id=options["group"],
            group_instance_id=options["instance"],
            auto_offset_reset="earliest",
            columns=["partition", "offset"],
            max_wait=0.0,
            on_assign=lambda parts: say(assigned=sorted(index for _, index in parts)),
            on_revoke=lambda parts: say(revoked=sorted(index for _, index in parts)),
            **settings,
        ) as consumer,
    ):
        while not closing.is_set():
            batch = consumer.poll(timeout=0.1)
            if batch is None or not len(batch):
                continue
            rows = batch.to_pylist()
            say(records=[[row["partition"], row["offset"]] for row in rows])
            try:
                consumer.commit(batch)
                say(committed=len(rows))
            except kafka.KafkaError as error:
                say(commit_failed=str(error))


CLIENTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "aiokafka": aiokafka,
    "confluent": confluent,
    "kafka-python": kafka_python,
    "ottla": ottla,
}


def main() -> None:
    client, options = sys.argv[1], json.loads(sys.argv[2])

    def wait_for_end() -> None:
        sys.stdin.read()
        closing.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    CLIENTS[client](options)


if __name__ == "__main__":
    main()
