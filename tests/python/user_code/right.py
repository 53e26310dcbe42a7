"""Code of a user, as the documentation shows it. No type checker finds anything wrong here.

``test_type_checkers.py`` lets them try. The code is not run.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

import ottla

if TYPE_CHECKING:
    import pandas as pd

    from ottla.typing import Acks, IsolationLevel

ORDERS = ottla.json({"customer": "utf8", "amount": "float64", "at": ottla.ts("ms")})


def connect(addresses: list[str], acks: Acks = "all") -> ottla.Client:
    return ottla.connect(
        addresses,
        client_id="etl",
        acks=acks,
        linger_ms=timedelta(milliseconds=5),
        compression_type="zstd",
        config={"metadata.max.age.ms": 60_000},
    )


def write(kafka: ottla.Client, frame: pl.DataFrame) -> int:
    kafka.create_topic("orders", partitions=6, config={"retention.ms": -1}, exist_ok=True)
    sent: ottla.RecordMetadata = kafka.send(
        "orders", {"amount": 1.5}, key="ada", headers={"a": b""}
    )
    offset: int | None = sent.offset
    rows = [{"customer": "ada", "amount": offset or 1.5}]
    kafka.write("orders", rows, key="customer", acks=1)
    return kafka["orders"].write(frame, key="customer", timestamp="at", compression_type="lz4")


def archive(kafka: ottla.Client) -> int | None:
    ends: dict[int, int] = kafka["orders"].offload(timeout=timedelta(minutes=5), progress=True)
    tier: ottla.TopicTier = kafka["orders"].tier
    behind: list[int | None] = [one.lag_records for one in tier.partitions]
    return tier.bytes if ends and not any(behind) else None


def frames(kafka: ottla.Client, level: IsolationLevel | None = None) -> pl.DataFrame:
    scan = kafka.scan(
        "orders",
        timedelta(hours=-6),
        datetime.now(timezone.utc),
        value=ORDERS,
        isolation_level=level,
        on_error="dlq:orders.dead",
        on_data_loss="warn",
    )
    of_pandas: pd.DataFrame = scan.to_pandas()
    assert of_pandas.shape[1] > 0
    everything: pl.DataFrame = scan.to_polars()
    checkpoint: dict[str, dict[int, int]] = scan.end
    Path("checkpoint.json").write_text(json.dumps(checkpoint), encoding="utf-8")
    rows: list[dict[str, object]] = []
    for batch in scan:
        rows += batch.to_pylist()
        amounts: ottla.Column = batch["amount"]
        part: ottla.RecordBatch = batch[10:20]
        first: dict[str, object] = batch[0]
        assert amounts.null_count <= len(part) + len(first)
        for row in batch:
            rows.append(row)
    frame = kafka["orders"].scan(value="json").head(3).to_polars()
    return frame.filter(pl.col("amount") > everything["amount"].mean())


def consume(kafka: ottla.Client) -> dict[str, dict[int, int]]:
    consumer = kafka.consumer(
        ["orders"], group_id="etl", until="caught_up", auto_offset_reset="earliest"
    )
    with consumer, kafka.transactional("etl-1") as producer:
        for batch in consumer:
            with producer.transaction(consumer=consumer, batch=batch) as tx:
                tx.write("enriched", batch.to_polars(), key="customer")
    return consumer.committed()


async def consume_async(kafka: ottla.Client) -> int:
    rows = 0
    async with kafka.consumer("orders", value=ottla.text(), until="caught_up") as consumer:
        async for batch in consumer:
            rows += batch.num_rows
            await consumer.commit_async(batch)
    async for batch in kafka.scan("orders", value={"amount": "float64"}):
        rows += len(batch)
    return rows


def keep(kafka: ottla.Client) -> None:
    with kafka.table("users", key="text", value={"city": "utf8"}, path="users") as users:
        users.refresh()
        frame: pl.DataFrame = users.to_polars()
        for change in users.changes():
            frame = frame.join(change.deletes, on="key", how="anti")
    late: list[pl.DataFrame] = []
    for window in kafka.windows("clicks", "1m", by="at", grace="10s", late=late.append):
        start: datetime = window.start
        Path(f"{start:%H%M}.json").write_text(json.dumps(window.checkpoint), encoding="utf-8")
        frame = window.to_polars().group_by("customer").len()


def admin(kafka: ottla.Client) -> list[str]:
    kafka.groups.reset("etl", "orders", timedelta(days=-1))
    lag: int | None = kafka.groups["etl"].lag
    kafka.alter_configs("orders", {"retention.ms": None})
    kafka.delete_records("orders", {0: lag or 0})
    with kafka["orders"].watch(every=timedelta(seconds=5), value="json", groups=["etl"]) as watch:
        watch.refresh()
    return [name for name in kafka.topics() if name in kafka]


with ottla.Broker("events", durability="fsync", reuse=True) as broker:
    client = broker.client(acks=0, threads=2)
    assert write(client, frames(client)) > 0


async def admin_async(kafka: ottla.Client) -> list[str]:
    topic: ottla.Topic = await kafka.create_topic_async("orders", partitions=6)
    scan: ottla.Scan = await kafka.scan_async(topic.name, value=ORDERS)
    lazy: pl.LazyFrame = scan.lazy().filter(pl.col("offset") > 0)
    await kafka.write_async("copy", lazy.collect(), key="customer")
    return await kafka.topics_async(internal=True)
