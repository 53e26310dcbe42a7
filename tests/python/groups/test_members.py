"""Two members of each client share a topic; one is killed; nothing is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from groups.harness import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from groups.harness import Group
    from processes import JavaTools

RECORDS = 200
"""Records to each partition, before and after the kill."""

KINDS = [
    Kind("confluent", "range"),
    Kind("confluent", "roundrobin"),
    Kind("confluent", "cooperative-sticky"),
    Kind("confluent", "uniform", "consumer"),
    Kind("confluent", "range", "consumer"),
    Kind("kafka-python", "range"),
    Kind("kafka-python", "roundrobin"),
    Kind("kafka-python", "sticky"),
    Kind("kafka-python", "cooperative-sticky"),
    Kind("aiokafka", "range"),
    Kind("aiokafka", "roundrobin"),
    Kind("aiokafka", "sticky"),
    Kind("ottla", "range"),
    Kind("ottla", "roundrobin"),
    Kind("ottla", "sticky"),
    Kind("ottla", "cooperative-sticky"),
    Kind("ottla", "uniform", "consumer"),
    Kind("ottla", "range", "consumer"),
]
JAVA_KINDS = [
    Kind("java", "range"),
    Kind("java", "roundrobin"),
    Kind("java", "sticky"),
    Kind("java", "cooperative-sticky"),
    Kind("java", "uniform", "consumer"),
    Kind("java", "range", "consumer"),
]
MIXED = [
    (Kind("ottla", "range"), Kind("confluent", "range")),
    (Kind("ottla", "range"), Kind("kafka-python", "range")),
    (Kind("ottla", "sticky"), Kind("aiokafka", "sticky")),
    (Kind("ottla", "cooperative-sticky"), Kind("confluent", "cooperative-sticky")),
    (Kind("ottla", "uniform", "consumer"), Kind("confluent", "uniform", "consumer")),
    # A group switches from one protocol to the other while it runs.
    (Kind("ottla", "range"), Kind("confluent", "uniform", "consumer")),
    (Kind("confluent", "range"), Kind("ottla", "uniform", "consumer")),
]
MIXED_WITH_JAVA = [
    (Kind("ottla", "roundrobin"), Kind("java", "roundrobin")),
    (Kind("ottla", "sticky"), Kind("java", "sticky")),
    (Kind("ottla", "cooperative-sticky"), Kind("java", "cooperative-sticky")),
    (Kind("ottla", "uniform", "consumer"), Kind("java", "uniform", "consumer")),
    (Kind("ottla", "cooperative-sticky"), Kind("java", "uniform", "consumer")),
]


def share_and_survive(group: Group, first: Kind, second: Kind) -> None:
    """Let two members share, kill the first, and count."""
    group.produce(RECORDS)
    killed = group.join(first)
    stays = group.join(second)
    group.wait("both members own partitions", group.is_divided)
    group.wait("every record was handed out", group.has_seen_all)
    killed.kill()
    group.produce(RECORDS)
    group.wait("the other member takes over", group.is_divided)
    group.wait("every record was handed out after the kill", group.has_seen_all)
    assert len(stays.assigned) == group.partitions
    stays.close()
    # Only what the killed member had not committed, or what moved in a rebalance, may come again.
    assert group.duplicates() <= 2 * RECORDS * group.partitions


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_partitions_of_a_killed_member_move_and_no_record_is_missed(
    make_group: Callable[[], Group], kind: Kind
) -> None:
    share_and_survive(make_group(), kind, kind)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", JAVA_KINDS, ids=str)
def test_partitions_of_a_killed_java_member_move_and_no_record_is_missed(
    java: JavaTools, make_group: Callable[[], Group], kind: Kind
) -> None:
    assert java
    share_and_survive(make_group(), kind, kind)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kinds", MIXED, ids=lambda kinds: f"{kinds[0]}+{kinds[1]}")
def test_our_members_share_a_group_with_others(
    make_group: Callable[[], Group], kinds: tuple[Kind, Kind]
) -> None:
    share_and_survive(make_group(), *kinds)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kinds", MIXED_WITH_JAVA, ids=lambda kinds: f"{kinds[0]}+{kinds[1]}")
def test_our_members_share_a_group_with_java(
    java: JavaTools, make_group: Callable[[], Group], kinds: tuple[Kind, Kind]
) -> None:
    assert java
    share_and_survive(make_group(), *kinds)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "kind", [Kind("confluent", "range"), Kind("confluent", "uniform", "consumer")], ids=str
)
def test_a_static_member_that_comes_back_keeps_its_partitions(
    make_group: Callable[[], Group], kind: Kind
) -> None:
    group = make_group()
    group.produce(10)
    first, second = group.join(kind, "one"), group.join(kind, "two")
    group.wait("both members own partitions", group.is_divided)
    owned, rebalances = set(first.assigned), second.rebalances
    first.close()
    again = group.join(kind, "one")
    group.wait("it is back", group.is_divided)
    assert again.assigned == owned
    assert second.rebalances == rebalances, "the other member did not notice"
