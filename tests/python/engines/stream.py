"""A Spark program that copies a topic, and dies in the middle of a micro-batch.

``stream.py ADDRESS TOPIC COPY PLACE DEATH``: a stream goes into Parquet files and another one into
the topic COPY, until all that is there has been read. The task that comes to the value DEATH kills
the whole program, Java and all, as by ``kill -9``, the first time that it does.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

import ottla.spark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

address, topic, copy, place, death = sys.argv[1:]


def dying(group: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    marker, fatal = Path(place) / f"died-at-{death}", death

    def pass_on(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch
            if fatal in batch["value"].to_pylist() and not marker.exists():
                marker.touch()
                os.killpg(group, signal.SIGKILL)

    return pass_on


def main() -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    ottla.spark.register(spark)
    kafka = {"kafka.bootstrap.servers": address}
    read = spark.readStream.format("ottla").options(**kafka, topic=topic, value="text")
    read = read.option("columns", "partition,offset,value")
    rows = read.options(max_offsets_per_trigger="30", parts="1").load()
    rows = rows.mapInArrow(dying(os.getpgid(0)), rows.schema)
    files = rows.writeStream.format("parquet").option("path", f"{place}/files")
    back = rows.select("value").writeStream.format("ottla").options(**kafka, topic=copy)
    queries = [
        sink.option("checkpointLocation", f"{place}/{name}").trigger(availableNow=True).start()
        for name, sink in {"of-files": files, "of-copy": back}.items()
    ]
    for query in queries:
        query.awaitTermination()


if __name__ == "__main__":
    main()
