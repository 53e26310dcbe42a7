"""`on_error="dlq:TOPIC"`: what cannot be decoded goes to another topic, unchanged and first."""

from __future__ import annotations

import asyncio

import pytest

import ottla

ORDERS = ottla.json({"id": "int64"})


@pytest.fixture
def orders(kafka: ottla.Client, name: str) -> str:
    """A topic of nine values, every third of which is not an order."""
    for number in range(9):
        value = '{"id": "none"}' if number % 3 == 1 else f'{{"id": {number}}}'
        kafka.send(
            name,
            value,
            key=f"k{number}",
            timestamp="2013-01-01T00:00:00Z",
            headers=[("trace", "a"), ("trace", "b")],
        )
    return name


def letters(kafka: ottla.Client, topic: str) -> list[dict[str, object]]:
    return kafka.scan(topic).head(1000).to_pylist()


def test_a_consumer_hands_out_the_good_rows_and_sends_the_bad(
    kafka: ottla.Client, orders: str
) -> None:
    dlq = f"{orders}.dlq"
    found = []
    with kafka.consumer(
        orders,
        start="earliest",
        until="caught_up",
        value=ORDERS,
        columns=["id"],
        on_error=f"dlq:{dlq}",
        max_rows=4,
    ) as consumer:
        for batch in consumer:
            found += batch["id"].to_pylist()
            # They are there before the rows are.
            assert len(letters(kafka, dlq)) >= batch.num_rejected
            assert batch.column_names == ["id"]
        assert consumer.position() == {orders: {0: 9}}
    assert found == [0, 2, 3, 5, 6, 8]
    sent = letters(kafka, dlq)
    assert [row["key"] for row in sent] == [b"k1", b"k4", b"k7"]
    assert {row["value"] for row in sent} == {b'{"id": "none"}'}
    assert {str(row["timestamp"]) for row in sent} == {"2013-01-01 00:00:00+00:00"}
    headers = [(one["key"], one["value"]) for one in sent[1]["headers"]]  # type: ignore[attr-defined]
    assert headers[:5] == [
        ("trace", b"a"),
        ("trace", b"b"),
        ("ottla.dlq.topic", orders.encode()),
        ("ottla.dlq.partition", b"0"),
        ("ottla.dlq.offset", b"4"),
    ]
    assert headers[5][0] == "ottla.dlq.error"
    assert b'"id"' in headers[5][1]


def test_a_batch_of_nothing_but_bad_rows_is_handed_out_empty(
    kafka: ottla.Client, name: str
) -> None:
    for _ in range(3):
        kafka.send(name, "nonsense")
    with kafka.consumer(
        name, start="earliest", until="caught_up", value=ORDERS, on_error=f"dlq:{name}.dlq"
    ) as consumer:
        (batch,) = list(consumer)
    assert (batch.num_rows, batch.num_rejected, batch.offsets) == (0, 3, {name: {0: (0, 3)}})
    assert "id" in batch


def test_a_scan_and_its_streams_leave_out_the_same_rows(kafka: ottla.Client, orders: str) -> None:
    dlq = f"{orders}.dlq"
    scan = kafka.scan(orders, value=ottla.json(), columns=["id"], on_error=f"dlq:{dlq}")
    typed = kafka.scan(orders, value=ORDERS, on_error=f"dlq:{dlq}")
    assert scan.count() == 9  # a mixed column is text
    assert typed.count() == 6
    assert typed.head(2)["id"].to_pylist() == [0, 2]
    newest = kafka[orders].tail(3, value=ORDERS, on_error=f"dlq:{dlq}")
    assert newest["id"].to_pylist() == [6, 8]
    assert dlq not in kafka
    assert typed.to_polars()["id"].to_list() == [0, 2, 3, 5, 6, 8]
    assert len(letters(kafka, dlq)) == 3
    assert sum(batch.num_rows for batch in typed) == 6
    assert len(letters(kafka, dlq)) == 6
    few = kafka.scan(orders, value=ORDERS, on_error=f"dlq:{dlq}", max_rows=3)
    batches = list(few)
    assert [id_ for batch in batches for id_ in batch["id"].to_pylist()] == [0, 2, 3]
    assert sum(batch.num_rejected for batch in batches) == 1
    assert batches[-1].offsets == {orders: {0: (3, 4)}}


def test_rows_wait_until_the_dead_letters_are_acknowledged(
    kafka: ottla.Client, orders: str
) -> None:
    dlq = f"{orders}.dlq"
    # Letters are too large for this topic until its settings change.
    kafka.create_topic(dlq, config={"max.message.bytes": 60})
    with kafka.consumer(
        orders, start="earliest", until="caught_up", value=ORDERS, on_error=f"dlq:{dlq}"
    ) as consumer:
        for _ in range(2):
            with pytest.raises(ottla.MessageTooLargeError):
                consumer.poll(30)
        assert consumer.position() == {orders: {0: 0}}
        kafka.alter_configs(dlq, {"max.message.bytes": None})
        batch = consumer.poll(30)
    assert batch is not None
    assert batch["id"].to_pylist() == [0, 2, 3, 5, 6, 8]
    assert len(letters(kafka, dlq)) == 3


def test_dead_letters_of_the_same_topic_are_an_error(kafka: ottla.Client, orders: str) -> None:
    with (
        kafka.consumer(
            orders, start="earliest", value=ORDERS, on_error=f"dlq:{orders}"
        ) as consumer,
        pytest.raises(ottla.DecodeError, match="already in the dead-letter topic"),
    ):
        consumer.poll(30)
    with pytest.raises(ottla.ConfigError, match="dlq:TOPIC"):
        kafka.consumer(orders, value=ORDERS, on_error="dlq:")
    with pytest.raises(ottla.ConfigError, match="dlq:TOPIC"):
        kafka.scan(orders, value=ORDERS, on_error="dead letters")


def test_async_for_sends_the_same(kafka: ottla.Client, orders: str) -> None:
    async def read() -> list[int]:
        found: list[int] = []
        async with kafka.consumer(
            orders, start="earliest", until="caught_up", value=ORDERS, on_error=f"dlq:{orders}.dlq"
        ) as consumer:
            async for batch in consumer:
                found += batch["id"].to_pylist()
        return found

    assert asyncio.run(read()) == [0, 2, 3, 5, 6, 8]
    assert len(letters(kafka, f"{orders}.dlq")) == 3
