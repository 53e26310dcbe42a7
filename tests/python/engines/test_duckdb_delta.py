"""DuckDB on the Delta table of a topic, with the extension that comes as a package."""

from __future__ import annotations

import duckdb
import duckdb_extension_delta

from test_tier_broker import Node, await_that, fill, node
from test_tier_delta import await_table, path_of, turn

__all__ = ["node"]


def connect() -> duckdb.DuckDBPyConnection:
    [package] = duckdb_extension_delta.__path__
    folder = f"{package}/extensions/v{duckdb.__version__}"
    connection = duckdb.connect()
    connection.load_extension(f"{folder}/delta.duckdb_extension")
    return connection


def test_duckdb_reads_the_table_of_a_topic(node: Node) -> None:
    node.create("orders", partitions=2, ottla_tier_table="delta")
    records = fill(node, "orders", 400)
    start = node.wait_tiered("orders")
    await_table(node)
    table = f"delta_scan('{path_of(node.tier)}')"
    connection = connect()
    counted = f'SELECT topic, partition, count(*), max("offset") FROM {table} GROUP BY ALL'
    assert connection.execute(counted).fetchall() == [("orders", 0, start, start - 1)]
    wanted = f'SELECT value FROM {table} WHERE "offset" BETWEEN 190 AND 199 ORDER BY "offset"'
    found = [value for (value,) in connection.execute(wanted).fetchall()]
    assert found == [one.value for one in records[190:200]]

    turn(node, "none")

    def is_refused() -> bool:
        try:
            connection.execute(counted)
        except duckdb.Error as error:
            return "ottlaTableIsOff" in str(error)
        return False

    await_that(is_refused, node.log)
