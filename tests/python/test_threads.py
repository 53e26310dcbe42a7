"""Any number of threads gives the same rows, in the same order, with the same errors."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from ottla.typing import CompressionType

ROWS = 12_000
AVRO = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": "string"},
        {"name": "price", "type": "double"},
    ],
}
PROTO = 'syntax = "proto3"; message Event { int64 id = 1; string name = 2; double price = 3; }'
TYPES = {"id": "int64", "name": "string", "price": "float64"}


def events() -> pl.DataFrame:
    ids = pl.Series("id", range(ROWS))
    return pl.DataFrame(
        {
            "id": ids,
            "name": [f"the name of event {number % 997}" for number in range(ROWS)],
            "price": ids / 8,
            "partition": (ids // 1000 % 3).cast(pl.Int32),
        }
    )


FORMATS: dict[str, tuple[Any, Any]] = {
    "raw": (ottla.raw("name"), ottla.raw()),
    "text": (ottla.raw("name"), ottla.text()),
    "json": (ottla.json(), ottla.json(TYPES)),
    "json, inferred": (ottla.json(), ottla.json()),
    "avro": (ottla.avro(AVRO), ottla.avro(AVRO)),
    "protobuf": (ottla.protobuf(PROTO), ottla.protobuf(PROTO)),
    "arrow_ipc": (ottla.arrow_ipc(), ottla.arrow_ipc()),
}


@pytest.mark.parametrize(
    ("kind", "partitions", "compression"),
    [
        *((kind, 1, "zstd") for kind in FORMATS),
        *(("json", 3, codec) for codec in ("none", "gzip", "snappy", "lz4", "zstd")),
    ],
)
def test_formats_codecs_and_partitions(
    kafka: ottla.Client, name: str, kind: str, partitions: int, compression: CompressionType
) -> None:
    writing, reading = FORMATS[kind]
    table = events()
    kafka.create_topic(name, partitions=partitions)
    if partitions == 1:
        table = table.drop("partition")
    options: dict[str, Any] = {"partition": "partition"} if partitions > 1 else {}
    kafka.write(name, table, value=writing, compression_type=compression, **options)

    def read(threads: int) -> list[Any]:
        # One partition after the other: between them the order is that of the fetches.
        return [
            (batch.num_rows, batch.offsets, pl.DataFrame(batch))
            for partition in range(partitions)
            for batch in kafka.scan(
                name, partitions=[partition], value=reading, batch_rows=700, threads=threads
            )
        ]

    one, four = read(1), read(4)
    assert [batch[:2] for batch in one] == [batch[:2] for batch in four]
    for before, after in zip(one, four, strict=True):
        assert before[2].equals(after[2])


@pytest.fixture
def spoiled(kafka: ottla.Client, name: str) -> str:
    """A topic of one partition with 12,000 values of which every 2,500th is no JSON."""
    values = [
        "broken" if number % 2500 == 2499 else f'{{"id": {number}}}' for number in range(12_000)
    ]
    kafka.create_topic(name, partitions=1)
    kafka.write(name, pl.DataFrame({"value": values}), value=ottla.raw("value"))
    return name


@pytest.mark.parametrize("threads", [1, 4])
def test_a_value_that_does_not_decode_raises_at_its_place(
    kafka: ottla.Client, spoiled: str, threads: int
) -> None:
    batches = iter(kafka.scan(spoiled, value={"id": int}, batch_rows=1000, threads=threads))
    assert [next(batches).num_rows for _ in range(2)] == [1000, 1000]
    with pytest.raises(ottla.DecodeError, match="offset 2499"):
        next(batches)

    with kafka.consumer(
        spoiled, start="earliest", value={"id": int}, max_rows=1000, threads=threads
    ) as consumer:
        # With more rows than a batch takes, batches are full.
        polled = [consumer.poll(10), consumer.poll(10)]
        assert [batch and batch.num_rows for batch in polled] == [1000, 1000]
        with pytest.raises(ottla.DecodeError, match="offset 2499"):
            consumer.poll(10)
        assert consumer.position() == {spoiled: {0: 2000}}


@pytest.mark.parametrize("on_error", ["null", "column", "dlq"])
def test_the_other_ends_of_values_that_do_not_decode(
    kafka: ottla.Client, spoiled: str, name: str, on_error: str
) -> None:
    dead = f"{name}-dead"
    found = []
    for threads in (1, 4):
        way = f"{on_error}:{dead}-{threads}" if on_error == "dlq" else on_error
        if on_error == "dlq":
            kafka.create_topic(f"{dead}-{threads}", partitions=1)
        scan = kafka.scan(spoiled, value={"id": int}, batch_rows=700, threads=threads, on_error=way)
        batches = [pl.DataFrame(batch) for batch in scan]
        letters = kafka.scan(f"{dead}-{threads}").to_polars() if on_error == "dlq" else None
        found.append((batches, letters))
    (one, one_letters), (four, four_letters) = found
    assert [len(batch) for batch in one] == [len(batch) for batch in four]
    assert pl.concat(one).equals(pl.concat(four))
    if one_letters is not None and four_letters is not None:
        assert one_letters["value"].to_list() == four_letters["value"].to_list() == [b"broken"] * 4
        assert one_letters["headers"].to_list() == four_letters["headers"].to_list()


@pytest.mark.parametrize("group", [False, True])
def test_consumers_and_members_hand_out_each_row_once(
    kafka: ottla.Client, name: str, group: bool
) -> None:
    table = events()
    kafka.create_topic(name, partitions=3)
    kafka.write(name, table, value=ottla.json(), partition="partition", compression_type="zstd")
    options: dict[str, Any] = (
        {"group_id": name, "auto_offset_reset": "earliest"} if group else {"start": "earliest"}
    )
    seen = []
    with kafka.consumer(
        name, value=ottla.json(TYPES), until="caught_up", max_rows=777, threads=4, **options
    ) as consumer:
        for batch in consumer:
            seen.append(pl.DataFrame(batch).select("partition", "offset", "id"))
            expected = consumer.position()[name]
            last = seen[-1].group_by("partition").agg(pl.col("offset").max() + 1)
            for partition, behind in last.iter_rows():
                assert expected[partition] == behind
    rows = pl.concat(seen)
    assert sorted(rows["id"]) == list(range(ROWS))
    for (_,), part in rows.group_by("partition"):
        assert part["offset"].to_list() == list(range(len(part)))


def test_a_seek_forgets_what_was_decoded_ahead(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, events().drop("partition"), value=ottla.json())
    with kafka.consumer(
        name, start="earliest", value=ottla.json(TYPES), max_rows=500, threads=4
    ) as consumer:
        for place in (0, 9000, 3):
            consumer.seek({0: place})
            batch = consumer.poll(10)
            assert batch is not None
            assert batch["id"].to_pylist() == list(range(place, place + batch.num_rows))
            assert consumer.position() == {name: {0: place + batch.num_rows}}


def test_a_client_may_say_how_many(broker: ottla.Broker, name: str) -> None:
    with broker.client(threads=3) as client:
        client.create_topic(name, partitions=1)
        client.write(name, events().drop("partition"), value=ottla.json())
        assert len(client.scan(name, value=ottla.json(TYPES)).to_polars()) == ROWS
        assert len(client.scan(name, value=ottla.json(TYPES), threads=1).to_polars()) == ROWS


@pytest.mark.parametrize("threads", [0, 257])
def test_a_number_of_threads_that_cannot_be(
    broker: ottla.Broker, kafka: ottla.Client, name: str, threads: int
) -> None:
    kafka.create_topic(name, partitions=1)
    with pytest.raises(ottla.ConfigError, match="threads must be 1 to 256"):
        kafka.scan(name, threads=threads)
    with pytest.raises(ottla.ConfigError, match="threads must be 1 to 256"):
        kafka.consumer(name, threads=threads)
    with pytest.raises(ottla.ConfigError, match="threads must be 1 to 256"):
        broker.client(threads=threads)
    with pytest.raises(TypeError, match="threads= takes a whole number"):
        kafka.scan(name, threads="many")  # type: ignore[arg-type]


def test_an_interrupt_ends_the_reading_and_leaves_nothing_running(
    kafka: ottla.Client, name: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, events().drop("partition"), value=ottla.json())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with kafka.consumer(name, start="earliest", value=ottla.json(TYPES), threads=4) as consumer:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                for _ in consumer:
                    pass
            # Where it stopped, it goes on.
            place = consumer.position()[name][0]
            rest = kafka.scan(name, start={0: place}, value=ottla.json(TYPES), threads=4)
            assert rest.count() == ROWS - place
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_slow_reader_is_not_overtaken_by_far(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, events().drop("partition"), value=ottla.json())
    scan = kafka.scan(name, value=ottla.json(TYPES), batch_rows=100, threads=2)
    batches = iter(scan)
    first = next(batches)
    # Others may read meanwhile, and each reading starts at its own beginning.
    assert sum(batch.num_rows for batch in scan) == ROWS
    assert first.num_rows + sum(batch.num_rows for batch in batches) == ROWS


def test_readers_in_several_python_threads(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, events().drop("partition"), value=ottla.json(), compression_type="lz4")
    counts: list[int] = []

    def read() -> None:
        counts.append(len(kafka.scan(name, value=ottla.json(TYPES), threads=3).to_polars()))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert counts == [ROWS] * 4
