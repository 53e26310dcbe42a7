"""Topics to Arrow tables and back: ours beside the peers."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ottla
from versus import peers
from versus.measure import (
    AGAIN,
    CLIENT_LIMIT,
    CORES,
    CORES_USED,
    DEFAULT,
    EMBEDDED,
    FROM_ARROW,
    FROM_JSON,
    KAFKA,
    ON_KAFKA,
    ONE_THREAD,
    POLARS,
    PRODUCE_BATCH,
    PRODUCE_TABLE,
    SCALING,
    TCP,
    TO_ARROW,
    TO_ARROW_ZSTD,
    TO_AVRO,
    TO_JSON,
    TO_SOME_JSON,
    TUNED,
    measured,
)
from versus.servers import create_topic, delete_topic

sys.path.insert(0, str(Path(__file__).parent.parent))
from end_to_end import EVENT_TYPES, binary_table, event_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from versus.measure import Results
    from versus.servers import Server

SLOW_PART = 10
"""Routes that would take minutes read only one record in this many."""
AVRO_TYPES = {"int64": "long", "float64": "double", "bool": "boolean", "string": "string"}
AVRO = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": name, "type": AVRO_TYPES[kind]} for name, kind in EVENT_TYPES.items()],
}


def note(results: Results, what: str, who: str, rows: int, read: Callable[[], int]) -> None:
    """Note how fast something reads or writes all rows, and how many cores this process used.

    An embedded broker runs in this process, a separate broker does not.
    """
    with measured([os.getpid()]) as span:
        found = read()
    assert found == rows, f"{found} of {rows} rows"
    results.add(what, who, rows / span.seconds)
    case = what.removesuffix(": rows/s")
    results.explain(f"{case}: {CORES_USED}", who, span.client_cpu / span.seconds)
    results.explain(f"{case}: {CLIENT_LIMIT}", who, span.busiest_thread / span.seconds)


def scan(client: ottla.Client, topic: str, **options: Any) -> int:
    """Read with ours."""
    return sum(batch.num_rows for batch in client.scan(topic, **options))


def round_of_frames(results: Results, servers: list[Server], rows: int, *, others: bool) -> None:
    """One round of all routes from a topic to a table, and back; ``others``: of peers, too."""
    binary, events = binary_table(rows), event_table(rows)
    with ottla.Broker(durability="os") as broker, broker.client() as client:
        ours(results, EMBEDDED, client, binary, events)
    for server in servers:
        with ottla.connect(server.bootstrap) as client:
            who = TCP if server.name != KAFKA else ON_KAFKA
            ours(results, who, client, binary, events)
        if server.name == KAFKA and others:
            theirs(results, server, binary, events)


def ours(
    results: Results, who: str, client: ottla.Client, binary: pa.Table, events: pa.Table
) -> None:
    """Measure this client, in this process or over TCP."""
    rows, typed, avro = binary.num_rows, ottla.json(EVENT_TYPES), ottla.avro(AVRO)
    topics = ("ours", "ours-zstd", "ours-json", "ours-avro")
    for topic in topics:
        client.create_topic(topic, partitions=1)
    raw: dict[str, Any] = {"key": "key", "value": ottla.raw("value")}
    write = partial(client.write, "ours", binary, **raw)
    note(results, FROM_ARROW, who, rows, write)
    write = partial(client.write, "ours-json", events, value=ottla.json())
    note(results, FROM_JSON, who, rows, write)
    client.write("ours-zstd", binary, compression_type="zstd", **raw)
    client.write("ours-avro", events, value=avro)
    routes: list[tuple[str, str, dict[str, Any]]] = [
        (TO_ARROW, "ours", {}),
        (TO_ARROW_ZSTD, "ours-zstd", {}),
        (TO_JSON, "ours-json", {"value": typed}),
        (TO_SOME_JSON, "ours-json", {"value": typed, "columns": ["customer", "amount"]}),
        (TO_AVRO, "ours-avro", {"value": avro}),
    ]
    for what, topic, options in routes:
        note(results, what, who, rows, partial(scan, client, topic, **options))
        if who == EMBEDDED:
            # The first reading also compares the checksums; these two do the same work.
            note(results, what, AGAIN, rows, partial(scan, client, topic, **options))
            one = partial(scan, client, topic, threads=1, **options)
            note(results, what, ONE_THREAD, rows, one)
            faster = results.values[what][AGAIN][-1] / results.values[what][ONE_THREAD][-1]
            results.explain(f"{what.removesuffix(': rows/s')}: {SCALING}", who, faster / CORES)
    for topic in topics:
        client.delete_topic(topic)


def theirs(results: Results, server: Server, binary: pa.Table, events: pa.Table) -> None:
    """Measure what users do today, with Apache Kafka."""
    address, rows = server.bootstrap, binary.num_rows
    read = ("frames", "frames-zstd", "frames-json", "frames-avro")
    topics = (*read, "written", "written-too", "written-json")
    for topic in topics:
        create_topic(server, topic, 1)
    raw: dict[str, Any] = {"key": "key", "value": ottla.raw("value")}
    with ottla.connect(address) as client:
        client.write("frames", binary, **raw)
        client.write("frames-zstd", binary, compression_type="zstd", **raw)
        client.write("frames-json", events, value=ottla.json())
        client.write("frames-avro", events, value=ottla.avro(AVRO))
    made = list(peers.binary_dicts(binary))
    write = peers.produce_batches
    note(results, FROM_ARROW, PRODUCE_BATCH, rows, partial(write, address, "written", made))
    del made
    # Generators: the work is done while it is measured.
    from_table = partial(write, address, "written-too", peers.binary_dicts(binary))
    note(results, FROM_ARROW, PRODUCE_TABLE, rows, from_table)
    from_events = partial(write, address, "written-json", peers.json_dicts(events))
    note(results, FROM_JSON, PRODUCE_TABLE, rows, from_events)
    # With its defaults the client waits a second whenever its queue is full, so it must read
    # everything.
    for who, settings in ((TUNED, peers.TUNING), (DEFAULT, {})):
        for what, topic in ((TO_ARROW, "frames"), (TO_ARROW_ZSTD, "frames-zstd")):
            table = partial(peers.confluent_table, address, topic, rows, **settings)
            note(results, what, who, rows, table)
        json_route = partial(peers.confluent_json, address, "frames-json", rows, **settings)
        note(results, TO_JSON, who, rows, json_route)
    lines = peers.polars_lines(events)
    note(results, TO_JSON, POLARS, rows, partial(peers.polars_json, lines))
    slow_ones(results, address, rows // SLOW_PART)
    for topic in topics:
        delete_topic(server, topic)


def slow_ones(results: Results, address: str, rows: int) -> None:
    """Measure clients that make an object of each message or value in Python."""
    avro_route = partial(peers.confluent_avro, address, "frames-avro", rows, AVRO, **peers.TUNING)
    note(results, TO_AVRO, f"{TUNED}, fastavro", rows, avro_route)
    aiokafka = partial(peers.aiokafka_table, address, "frames", rows)
    note(results, TO_ARROW, "aiokafka", rows, aiokafka)
    kafka_python = partial(peers.kafka_python_table, address, "frames", rows)
    note(results, TO_ARROW, "kafka-python", rows, kafka_python)
    for what, topic, kind in ((TO_ARROW, "frames", "bytes"), (TO_JSON, "frames-json", "json")):
        found, why = peers.quix_rate(address, topic, rows, kind)
        if found is None:
            results.missing[what]["Quix Streams"] = why
        else:
            results.add(what, "Quix Streams", found)
