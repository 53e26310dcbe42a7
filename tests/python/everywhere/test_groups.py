"""Groups, against every broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import ottla


@pytest.fixture
def filled(client: ottla.Client, topic: str) -> str:
    """A topic with thirty records in three partitions."""
    for number in range(30):
        client.send_async(topic, str(number), partition=number % 3)
    client.flush(30)
    return topic


def numbers(batch: ottla.RecordBatch | None) -> list[int]:
    return [] if batch is None else [int(value) for value in batch["value"]]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_reads_on_where_it_committed(
    client: ottla.Client, filled: str, protocol: str
) -> None:
    options: dict[str, Any] = {
        "group_id": filled,
        "group_protocol": protocol,
        "auto_offset_reset": "earliest",
        "until": "caught_up",
        "max_rows": 7,
    }
    with client.consumer(filled, **options) as consumer:
        first = next(consumer)
        consumer.commit(first)
        described = client.groups[filled]
        assert (described.state, described.type) == ("Stable", protocol)
        assert sum(one.lag or 0 for one in described.partitions) <= 30 - first.num_rows
        (member,) = described.members
        assert member.member_id == consumer.member_id
        assert member.assignment == [(filled, one) for one in range(3)]
    with client.consumer(filled, **options) as consumer:
        rest = [number for batch in consumer for number in numbers(batch)]
        consumer.commit()
    assert sorted(numbers(first) + rest) == list(range(30))
    group = client.groups[filled]
    assert (group.state, group.lag, group.members) == ("Empty", 0, [])


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_members_share_a_topic(client: ottla.Client, filled: str, protocol: str) -> None:
    told: list[tuple[str, int]] = []
    options: dict[str, Any] = {"group_id": filled, "group_protocol": protocol}
    with (
        client.consumer(
            filled,
            auto_offset_reset="earliest",
            on_assign=lambda parts: told.append(("assigned", len(parts))),
            on_revoke=lambda parts: told.append(("revoked", len(parts))),
            **options,
        ) as first,
        client.consumer(filled, auto_offset_reset="earliest", **options) as second,
    ):
        found: list[int] = []
        while (
            not (first.assignment and second.assignment)
            or len(first.assignment + second.assignment) != 3
            or len(set(found)) < 30
        ):
            for member in (first, second):
                batch = member.poll(0.05)
                if batch is not None:
                    found += numbers(batch)
                    member.commit(batch)
        assert sorted(first.assignment + second.assignment) == [(filled, one) for one in range(3)]
    kinds = [kind for kind, _ in told]
    assert kinds[0] == "assigned"
    assert set(found) == set(range(30))


def test_offsets_of_a_group_are_reset_and_deleted(client: ottla.Client, filled: str) -> None:
    assert client.groups.reset(filled, filled, 4) == {filled: dict.fromkeys(range(3), (None, 4))}
    assert client.groups.reset(filled, {filled: [1]}, shift=-1) == {filled: {1: (4, 3)}}
    assert [one.committed_offset for one in client.groups[filled].partitions] == [4, 3, 4]
    assert filled in [group.group_id for group in client.groups.list(state="Empty")]
    client.groups.delete_offsets(filled, filled, [0])
    assert [one.partition for one in client.groups[filled].partitions] == [1, 2]
    client.groups.delete(filled)
    assert filled not in client.groups
