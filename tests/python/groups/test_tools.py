"""What Apache Kafka's tools say about groups, and do to them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from groups.harness import BROKER_OPTIONS, Kind
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from groups.harness import Group
    from processes import JavaTools

RECORDS = 50


def commit(group: Group, offsets: dict[int, int], metadata: str = "") -> None:
    """Commit without being a member."""
    consumer = Consumer({"bootstrap.servers": group.bootstrap, "group.id": group.name})
    parts = [
        TopicPartition(group.topic, index, offset, metadata) for index, offset in offsets.items()
    ]
    for part in consumer.commit(offsets=parts, asynchronous=False):
        assert part.error is None, part.error
    consumer.close()


def committed(group: Group) -> dict[int, int]:
    """Return what is committed."""
    consumer = Consumer({"bootstrap.servers": group.bootstrap, "group.id": group.name})
    parts = consumer.committed([TopicPartition(group.topic, i) for i in range(group.partitions)])
    consumer.close()
    return {part.partition: part.offset for part in parts if part.offset >= 0}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "kind", [Kind("confluent", "range"), Kind("confluent", "uniform", "consumer")], ids=str
)
def test_kafka_consumer_groups_describes_resets_and_deletes(
    java: JavaTools, make_group: Callable[..., Group], kind: Kind
) -> None:
    group = make_group(partitions=2)
    tool = ("--bootstrap-server", group.bootstrap, "--group", group.name)
    group.produce(RECORDS)
    member = group.join(kind)
    group.wait("every record was handed out", group.has_seen_all)
    rows = java.run("consumer-groups", *tool, "--describe").splitlines()
    # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
    shown = {row.split()[2]: row.split()[3:6] for row in rows if group.topic in row.split()[1:2]}
    assert set(shown) == {"0", "1"}
    assert all(int(end) == RECORDS for _, end, _ in shown.values())
    members = java.run("consumer-groups", *tool, "--describe", "--members")
    assert "rdkafka" in members
    state = java.run("consumer-groups", *tool, "--describe", "--state")
    assert "Stable" in state
    assert kind.assignor is not None
    assert kind.assignor in state
    listed = java.run(
        "consumer-groups", "--bootstrap-server", group.bootstrap, "--list", "--state", "Stable"
    )
    assert group.name in listed
    assert "not empty" in java.run("consumer-groups", *tool, "--delete")
    member.close()

    reset = ("--reset-offsets", "--topic", group.topic, "--to-offset", "7", "--execute")
    java.run("consumer-groups", *tool, *reset)
    assert committed(group) == {0: 7, 1: 7}
    topic_0 = ("--delete-offsets", "--topic", f"{group.topic}:0")
    assert "Successful" in java.run("consumer-groups", *tool, *topic_0)
    assert committed(group) == {1: 7}
    java.run("consumer-groups", *tool, "--delete")
    everything = java.run("consumer-groups", "--bootstrap-server", group.bootstrap, "--list")
    assert group.name not in everything.splitlines()
    assert committed(group) == {}


def objects(printed: str) -> Iterator[dict[str, Any]]:
    """Read what a formatter prints: objects one behind the other, and lines of the log."""
    decoder, at = json.JSONDecoder(), printed.find('{"key"')
    while at >= 0:
        entry, end = decoder.raw_decode(printed, at)
        yield entry
        at = printed.find('{"key"', end)


@pytest.mark.timeout(120)
def test_the_console_consumer_prints_the_offsets_topic(
    java: JavaTools, make_group: Callable[..., Group]
) -> None:
    group = make_group(partitions=2)
    group.produce(3)
    commit(group, {0: 2, 1: 3}, "a note")
    member = group.join(Kind("confluent", "range"))
    group.wait("the member owns partitions", group.is_divided)
    member.close()
    source = ("--bootstrap-server", group.bootstrap, "--topic", "__consumer_offsets")
    whole = (*source, "--from-beginning", "--timeout-ms", "4000")
    formatter = "org.apache.kafka.tools.consumer."
    printed = java.run(
        "console-consumer", *whole, "--formatter", f"{formatter}OffsetsMessageFormatter"
    )
    offsets = [
        (entry["key"]["data"]["partition"], entry["value"]["data"])
        for entry in objects(printed)
        if entry["key"]["data"]["group"] == group.name and entry["value"]
    ]
    assert (0, 2) in {(partition, data["offset"]) for partition, data in offsets}
    # librdkafka sends the end of its C string along.
    assert any(data["metadata"].rstrip("\0") == "a note" for _, data in offsets), offsets
    printed = java.run(
        "console-consumer", *whole, "--formatter", f"{formatter}GroupMetadataMessageFormatter"
    )
    groups = [
        entry["value"]["data"]
        for entry in objects(printed)
        if entry["key"]["data"]["group"] == group.name and entry["value"]
    ]
    assert any(data["protocolType"] == "consumer" for data in groups)
    assert any(data["protocol"] == "range" and data["members"] for data in groups)


@pytest.mark.timeout(120)
def test_kafka_dumps_the_log_of_groups_of_both_protocols(
    java: JavaTools, make_group: Callable[..., Group], tmp_path: Path
) -> None:
    options = [word for item in BROKER_OPTIONS.items() for word in ("-o", "=".join(item))]
    options += ["-o", "offsets.topic.num.partitions=1"]
    broker = BrokerProcess(tmp_path / "data", *options)
    for kind in (Kind("confluent", "range"), Kind("confluent", "uniform", "consumer")):
        group = make_group(partitions=2, address=broker.bootstrap)
        group.produce(3)
        member = group.join(kind)
        group.wait("every record was handed out", group.has_seen_all)
        member.close()
    assert broker.stop() == 0, broker.stderr()
    log = tmp_path / "data" / "__consumer_offsets-0" / "00000000000000000000.log"
    dump = java.run("dump-log", "--offsets-decoder", "--files", str(log))
    types = set(re.findall(r'key: \{"type":"(\d+)"', dump))
    # Offsets and the classic group; for the other one epoch, member, target and assignment.
    assert types == {"1", "2", "3", "5", "6", "7", "8"}, dump
    assert '"memberEpoch"' in dump


def test_metadata_and_leader_epochs_of_commits_come_back(make_group: Callable[..., Group]) -> None:
    group = make_group(partitions=2)
    group.produce(5)
    config = {"bootstrap.servers": group.bootstrap, "group.id": group.name}
    consumer = Consumer(config)
    part = TopicPartition(group.topic, 0, 4, metadata="ünïcode", leader_epoch=0)
    consumer.commit(offsets=[part], asynchronous=False)
    found, nothing = consumer.committed(
        [TopicPartition(group.topic, 0), TopicPartition(group.topic, 1)]
    )
    consumer.close()
    assert (found.offset, found.metadata, found.leader_epoch) == (4, "ünïcode", 0)
    assert nothing.offset < 0
