"""Topic to Arrow table with Quix Streams, run by the interpreter that has it.

It needs a different confluent-kafka than the tests, so it has an environment of its own. It prints
the rows per second from the first row on, without the group's start, since a framework runs for a
long time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid

import pyarrow as pa
from quixstreams import Application


def main(bootstrap: str, topic: str, rows: int, kind: str) -> None:
    """Read this many rows into a table."""
    values: list[object] = []
    times: list[float] = []

    def take(value: object) -> None:
        if not values:
            times.append(time.perf_counter())
        values.append(value)

    with tempfile.TemporaryDirectory() as directory:
        application = Application(
            bootstrap,
            consumer_group=f"quix-{uuid.uuid4()}",
            auto_offset_reset="earliest",
            loglevel="ERROR",
            state_dir=directory,
        )
        source = application.topic(topic, value_deserializer=kind)
        frame = application.dataframe(source)
        frame.update(take)
        application.run(count=rows, timeout=60, collect=False)
    if kind == "json":
        table = pa.Table.from_pylist(values)
    else:
        table = pa.table({"value": pa.array(values, pa.binary())})
    rate = table.num_rows / (time.perf_counter() - times[0])
    print(json.dumps({"rows": table.num_rows, "rate": rate}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
