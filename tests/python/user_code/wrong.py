"""Mistakes of a user. Type checkers find something wrong in each line that says so, and only there.

``test_type_checkers.py`` lets them try. The code is not run.
"""

from __future__ import annotations

import ottla

kafka = ottla.connect("localhost:9092", linger_m=5)  # wrong
kafka = ottla.connect("localhost:9092", acks="most")  # wrong
kafka = ottla.connect("localhost:9092", compression_type="zip")  # wrong
broker = ottla.Broker(durability="never")  # wrong
broker = ottla.Broker(9092)  # wrong
client = broker.client(linger_ms="soon")  # wrong
producer = ottla.Producer(enable_idempotency=True)  # wrong

broker = ottla.Broker(port="9092")  # wrong

# --- writing
kafka.send("orders", timestamp=1_700_000_000)  # wrong
kafka.send("orders", b"", value_format="xml")  # wrong
kafka.send("orders", b"").offsets  # wrong
kafka.write("orders", [], acks=2)  # wrong
kafka.write("orders", [], compression_type="zip")  # wrong
kafka["orders"].write([], compression="zstd")  # wrong
kafka["orders"].write("orders", [])  # wrong

# --- reading
kafka.scan("orders", isolation_level="committed")  # wrong
kafka.scan("orders", on_data_loss="ignore")  # wrong
kafka.scan("orders", on_eror="null")  # wrong
kafka.scan("orders", value="avro")  # wrong
kafka.scan("orders", 5)  # wrong
kafka["orders"].scan(max_rows="all")  # wrong
kafka.scan("orders").to_polars().shape.rows  # wrong
kafka.scan("orders").to_pandas().no_column_of_mine()  # wrong
len(kafka.scan("orders"))  # wrong
for batch in kafka.scan("orders"):
    batch.offset  # wrong
    batch[0].offset  # wrong
    batch["amount"].sum()  # wrong
    batch.to_polars().to_pandas_frame()  # wrong

    batch.select("amount").rows  # wrong
kafka.scan("orders").lazy().height  # wrong
kafka.topics_async().append("x")  # wrong

# --- groups
kafka.consumer("orders", until="now")  # wrong
kafka.consumer("orders", group="etl")  # wrong
kafka.consumer("orders", auto_offset_reset="newest")  # wrong
kafka.consumer("orders", group_protocol="new")  # wrong
kafka.consumer("orders").poll(1).num_rows  # wrong
kafka.groups.list(type="share")  # wrong
kafka.transactional("etl", compression_type="zip")  # wrong

# --- tables, windows and formats
kafka.table("users", key="json")  # wrong
kafka.table("users", on_error="dlq:users.dead")  # wrong
kafka.table("users").changes().upserts  # wrong
kafka.windows("clicks", 60)  # wrong
kafka.windows("clicks", "1m", late="keep")  # wrong
kafka.windows("clicks", "1m", idle="wait")  # wrong
ottla.json(nan="zero")  # wrong
ottla.arrow_ipc(compression="gzip")  # wrong
ottla.ts("minutes")  # wrong
ottla.timestamp(1_700_000_000)  # wrong
