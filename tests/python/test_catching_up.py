"""Members of a group that end when they have read what there was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from test_groups import PROTOCOLS, numbers

if TYPE_CHECKING:
    import ottla


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_group_reads_everything_once(remote: ottla.Client, filled: str, protocol: str) -> None:
    found: list[int] = []
    options: dict[str, Any] = {
        "group_protocol": protocol,
        "auto_offset_reset": "earliest",
        "max_rows": 7,
    }
    with remote.consumer(filled, group_id=filled, until="caught_up", **options) as consumer:
        for batch in consumer:
            assert batch.num_rows <= 7
            found += numbers(batch)
            assert consumer.commit(batch) == {
                topic: {one: end for one, (_, end) in ends.items()}
                for topic, ends in batch.offsets.items()
            }
        assert consumer.committed() == {filled: dict.fromkeys(range(4), 10)}
        assert consumer.position() == consumer.committed()
        assert sum(consumer.lag()[filled].values()) == 0
        assert "of group" in repr(consumer)
        assert consumer.member_id
        assert consumer.generation >= 1
    assert sorted(found) == list(range(40))
    remote.send(filled, "40", partition=2)
    with remote.consumer(filled, group_id=filled, until="caught_up", **options) as again:
        assert [numbers(batch) for batch in again] == [[40]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_member_that_catches_up_leaves_the_partitions_of_others_to_them(
    hurried: ottla.Broker, name: str, protocol: str
) -> None:
    """As the docstring says: it cannot know whether they read them."""
    with hurried.client() as kafka:
        kafka.create_topic(name, partitions=4)
        for number in range(40):
            kafka.send_async(name, str(number), partition=number % 4)
        kafka.flush(30)
        options: dict[str, Any] = {
            "group_id": name,
            "group_protocol": protocol,
            "auto_offset_reset": "earliest",
        }
        # It joins, and hands out nothing afterwards, as one that has died.
        silent = kafka.consumer(name, **options)
        with kafka.consumer(name, until="caught_up", **options) as consumer:
            taken = []
            while len(consumer.assignment) != 2 or len(silent.assignment) != 2:
                taken += numbers(consumer.poll(0.01))
                silent.poll(0.01)
            own = {partition for _, partition in consumer.assignment}
            taken += [number for batch in consumer for number in numbers(batch)]
            assert {number % 4 for number in taken} >= own
            assert sorted(one for one in taken if one % 4 in own) == [
                number for number in range(40) if number % 4 in own
            ]
            assert {partition for _, partition in consumer.assignment} == own
        silent.close()
