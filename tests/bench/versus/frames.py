"""Topics to Arrow tables and back: ours beside the peers."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ottla
from versus import peers
from versus.measure import (
    DEFAULT,
    EMBEDDED,
    FROM_ARROW,
    FROM_JSON,
    KAFKA,
    ON_KAFKA,
    PRODUCE_BATCH,
    PRODUCE_TABLE,
    TCP,
    TO_ARROW,
    TO_AVRO,
    TO_JSON,
    TUNED,
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
"""Routes that would take minutes read one record out of so many."""
AVRO_TYPES = {"int64": "long", "float64": "double", "bool": "boolean", "string": "string"}
AVRO = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": name, "type": AVRO_TYPES[kind]} for name, kind in EVENT_TYPES.items()],
}


def rate(rows: int, read: Callable[[], int]) -> float:
    """Return rows per second of something that reads or writes them all."""
    begin = time.perf_counter()
    found = read()
    elapsed = time.perf_counter() - begin
    assert found == rows, f"{found} of {rows} rows"
    return rows / elapsed


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
    for topic in ("ours", "ours-json", "ours-avro"):
        client.create_topic(topic, partitions=1)
    written = rate(rows, lambda: client.write("ours", binary, key="key", value=ottla.raw("value")))
    results.add(FROM_ARROW, who, written)
    written = rate(rows, lambda: client.write("ours-json", events, value=ottla.json()))
    results.add(FROM_JSON, who, written)
    client.write("ours-avro", events, value=avro)
    results.add(TO_ARROW, who, rate(rows, lambda: scan(client, "ours")))
    results.add(TO_JSON, who, rate(rows, lambda: scan(client, "ours-json", value=typed)))
    results.add(TO_AVRO, who, rate(rows, lambda: scan(client, "ours-avro", value=avro)))
    for topic in ("ours", "ours-json", "ours-avro"):
        client.delete_topic(topic)


def theirs(results: Results, server: Server, binary: pa.Table, events: pa.Table) -> None:
    """Measure what users do today, against Apache Kafka."""
    address, rows = server.bootstrap, binary.num_rows
    topics = ("frames", "frames-json", "frames-avro", "written", "written-too", "written-json")
    for topic in topics:
        create_topic(server, topic, 1)
    with ottla.connect(address) as client:
        client.write("frames", binary, key="key", value=ottla.raw("value"))
        client.write("frames-json", events, value=ottla.json())
        client.write("frames-avro", events, value=ottla.avro(AVRO))
    made = list(peers.binary_dicts(binary))
    write = peers.produce_batches
    written = rate(rows, partial(write, address, "written", made))
    results.add(FROM_ARROW, PRODUCE_BATCH, written)
    del made
    written = rate(rows, lambda: write(address, "written-too", peers.binary_dicts(binary)))
    results.add(FROM_ARROW, PRODUCE_TABLE, written)
    written = rate(rows, lambda: write(address, "written-json", peers.json_dicts(events)))
    results.add(FROM_JSON, PRODUCE_TABLE, written)
    # With its defaults the client waits a second whenever its queue is full: it must read all.
    for who, settings in ((TUNED, peers.TUNING), (DEFAULT, {})):
        binary_route = partial(peers.confluent_table, address, "frames", rows, **settings)
        results.add(TO_ARROW, who, rate(rows, binary_route))
        json_route = partial(peers.confluent_json, address, "frames-json", rows, **settings)
        results.add(TO_JSON, who, rate(rows, json_route))
    slow_ones(results, address, rows // SLOW_PART)
    for topic in topics:
        delete_topic(server, topic)


def slow_ones(results: Results, address: str, rows: int) -> None:
    """Measure clients that make an object of each message or value in Python."""
    avro_route = partial(peers.confluent_avro, address, "frames-avro", rows, AVRO, **peers.TUNING)
    results.add(TO_AVRO, f"{TUNED}, fastavro", rate(rows, avro_route))
    results.add(
        TO_ARROW, "aiokafka", rate(rows, partial(peers.aiokafka_table, address, "frames", rows))
    )
    kafka_python = partial(peers.kafka_python_table, address, "frames", rows)
    results.add(TO_ARROW, "kafka-python", rate(rows, kafka_python))
    for what, topic, kind in ((TO_ARROW, "frames", "bytes"), (TO_JSON, "frames-json", "json")):
        found, why = peers.quix_rate(address, topic, rows, kind)
        if found is None:
            results.missing[what]["Quix Streams"] = why
        else:
            results.add(what, "Quix Streams", found)
