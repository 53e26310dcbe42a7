"""Offsets in a SQL table, written in one transaction with the rows.

A program's position is stored next to its output: either the transaction committed and both are in
the database, or neither is. Whenever the program dies, the next run continues from exactly that
position, and no row is lost or duplicated. Works with any connection of the Python database API
(``sqlite3``, ``psycopg``, ``duckdb`` …), or a connection or session of SQLAlchemy.

Examples
--------
>>> import ottla, sqlite3
>>> db = sqlite3.connect(":memory:")
>>> _ = db.execute("CREATE TABLE words (word TEXT)")
>>> with ottla.Broker() as broker:
...     kafka = broker.client()
...     for word in ("one", "two"):
...         _ = kafka.send("words", word)
...     resume = ottla.sql_offsets.load(db, "etl")
...     with kafka.consumer(
...         "words", resume=resume, until="caught_up", value=ottla.text()
...     ) as consumer:
...         for batch in consumer:
...             with db:  # one transaction
...                 rows = [(word,) for word in batch["value"].to_pylist()]
...                 _ = db.executemany("INSERT INTO words VALUES (?)", rows)
...                 ottla.sql_offsets.save(db, "etl", batch.offsets)
>>> ottla.sql_offsets.load(db, "etl")
{'words': {0: 2}}
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from ottla._offsets import spans
from ottla.errors import ConfigError, FencedError

if TYPE_CHECKING:
    from ottla._offsets import Offsets

__all__ = ["SqlOffsets", "load", "resume", "save"]

#: A table name, optionally with a schema; it is inserted into the statements verbatim.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")

_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
  app VARCHAR(255) NOT NULL,
  topic VARCHAR(249) NOT NULL,
  partition_id INTEGER NOT NULL,
  next_offset BIGINT NOT NULL,
  PRIMARY KEY (app, topic, partition_id)
)"""
_LOAD = "SELECT topic, partition_id, next_offset FROM {table} WHERE app = :app"
_KEY = "app = :app AND topic = :topic AND partition_id = :partition"
_KNOWN = "SELECT next_offset FROM {table} WHERE " + _KEY
_INSERT = (
    "INSERT INTO {table} (app, topic, partition_id, next_offset) "
    "VALUES (:app, :topic, :partition, :next)"
)
# The old value in the condition keeps a second program from writing the same rows.
_UPDATE = "UPDATE {table} SET next_offset = :next WHERE " + _KEY + " AND next_offset = :known"


def load(connection: Any, app: str, *, table: str = "ottla_offsets") -> dict[str, dict[int, int]]:
    """Return a program's position; creates the table of offsets when there is none.

    Parameters
    ----------
    connection : DB-API connection, or SQLAlchemy Connection or Session
        The database. Call this outside any transaction: some databases commit when a table is
        created.
    app : str
        The name of the program; a table may hold the offsets of several.
    table : str, default "ottla_offsets"
        The table of offsets, optionally with its schema.

    Returns
    -------
    dict of str to dict of int to int
        The offsets to continue from, by topic and partition, for ``resume=`` of a consumer; empty
        at first.

    Examples
    --------
    >>> import ottla, sqlite3
    >>> ottla.sql_offsets.load(sqlite3.connect(":memory:"), "etl")
    {}
    """
    database = _Database(connection, table)
    database.run(_CREATE, {})
    rows = database.run(_LOAD, {"app": app}).fetchall()
    database.finish()
    found: dict[str, dict[int, int]] = {}
    for topic, partition, offset in sorted(tuple(row) for row in rows):
        found.setdefault(str(topic), {})[int(partition)] = int(offset)
    return found


class SqlOffsets:
    """The offsets that a SQL table holds; made by :func:`resume`.

    A function of a topic and a partition that returns the offset to continue from, or None where
    nothing was written.

    Examples
    --------
    >>> import ottla, sqlite3
    >>> database = sqlite3.connect(":memory:")
    >>> position = ottla.sql_offsets.SqlOffsets(database, "etl", "ottla_offsets")
    >>> position.refresh()
    >>> position("orders", 0) is None
    True
    """

    def __init__(self, connection: Any, app: str, table: str) -> None:
        self._connection = connection
        self._app = app
        self._table = table
        self._offsets: dict[str, dict[int, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the table again; a group consumer does this when it is assigned partitions."""
        self._offsets = load(self._connection, self._app, table=self._table)

    def __call__(self, topic: str, partition: int) -> int | None:
        """Return the offset after the last row of a partition that is in the table."""
        return self._offsets.get(topic, {}).get(partition)

    def __repr__(self) -> str:
        return f"<ottla.SqlOffsets of {self._app!r} in {self._table}>"


def resume(connection: Any, app: str, *, table: str = "ottla_offsets") -> SqlOffsets:
    """Return a program's position, for ``resume=`` of a member of a group.

    The table is read whenever partitions are assigned, so that the member continues where the
    previous owner stopped.

    Parameters
    ----------
    connection : DB-API connection, or SQLAlchemy Connection or Session
        The database, not in a transaction.
    app : str
        The name of the program; the same for all members of the group.
    table : str, default "ottla_offsets"
        The table of offsets, optionally with its schema.

    Returns
    -------
    SqlOffsets
        A function of a topic and a partition.

    Examples
    --------
    >>> import ottla, sqlite3
    >>> database = sqlite3.connect(":memory:")
    >>> position = ottla.sql_offsets.resume(database, "etl")
    >>> ottla.sql_offsets.save(database, "etl", {"orders": {0: (0, 7)}})
    >>> database.commit()
    >>> position.refresh()  # a member does this when partitions are assigned to it
    >>> position("orders", 0)
    7
    """
    return SqlOffsets(connection, app, table)


def save(connection: Any, app: str, offsets: Offsets, *, table: str = "ottla_offsets") -> None:
    """Write the offsets of a batch, within the transaction that writes its rows.

    Does not commit: commit the rows and the offsets together yourself.

    Parameters
    ----------
    connection : DB-API connection, or SQLAlchemy Connection or Session
        The database, in the transaction of the rows.
    app : str
        The name of the program.
    offsets : Offsets
        ``batch.offsets``, or ``{topic: {partition: offset}}``.
    table : str, default "ottla_offsets"
        The table of offsets, created by :func:`load`.

    Raises
    ------
    FencedError
        When another run of the program has already written these rows. Roll back.

    Examples
    --------
    >>> import ottla, sqlite3
    >>> database = sqlite3.connect("orders.db")
    >>> _ = database.execute("CREATE TABLE orders (amount INTEGER)")
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("orders", {"amount": 3})
    ...     position = ottla.sql_offsets.load(database, "etl")
    ...     for batch in kafka.scan("orders", resume=position, value={"amount": "int64"}):
    ...         rows = [(row["amount"],) for row in batch]
    ...         _ = database.executemany("INSERT INTO orders VALUES (?)", rows)
    ...         ottla.sql_offsets.save(database, "etl", batch.offsets)
    ...         database.commit()  # the rows and the offsets, or neither
    >>> ottla.sql_offsets.load(database, "etl")
    {'orders': {0: 1}}
    """
    database = _Database(connection, table)
    for topic, partitions in spans(offsets).items():
        for partition, (start, end) in partitions.items():
            key = {"app": app, "topic": topic, "partition": partition}
            row = database.run(_KNOWN, key).fetchone()
            if row is None:
                # Violates the primary key when another run was faster.
                database.run(_INSERT, key | {"next": end})
                continue
            known = int(row[0])
            if start is not None and known > start:
                raise FencedError(
                    f"{app!r} has written {topic}-{partition} up to offset {known}, but the batch "
                    f"begins at {start}: another run was faster; roll back, and create a new "
                    "consumer with resume=ottla.sql_offsets.load(…)"
                )
            updated = database.run(_UPDATE, key | {"next": end, "known": known})
            if updated.rowcount == 0:
                raise FencedError(
                    f"another run of {app!r} is writing {topic}-{partition} at the same time: "
                    "roll back, and create a new consumer with resume=ottla.sql_offsets.load(…)"
                )


class _Database:
    """A connection of either kind."""

    def __init__(self, connection: Any, table: str) -> None:
        if not _NAME.fullmatch(table):
            raise ConfigError(f"table={table!r} is not the name of a table")
        self._connection = connection
        self._table = table
        self._sqlalchemy = type(connection).__module__.partition(".")[0] == "sqlalchemy" or (
            not hasattr(connection, "cursor") and hasattr(connection, "execute")
        )
        begun = getattr(connection, "in_transaction", False)
        #: Whether a transaction that is open afterwards does not belong to the caller.
        self._idle = not (begun() if callable(begun) else begun)

    def run(self, statement: str, values: dict[str, Any]) -> Any:
        statement = statement.format(table=self._table)
        if self._sqlalchemy:
            from sqlalchemy import text

            return self._connection.execute(text(statement), values)
        cursor = self._connection.cursor()
        cursor.execute(*_in_style(statement, values, _style(self._connection)))
        return cursor

    def finish(self) -> None:
        """Commit, unless the caller had begun a transaction."""
        if self._idle:
            self._connection.commit()


def _style(connection: Any) -> str:
    """Return the parameter style of a connection's driver."""
    for kind in type(connection).__mro__:
        parts = kind.__module__.split(".")
        for count in range(len(parts), 0, -1):
            module = sys.modules.get(".".join(parts[:count]).lstrip("_"))
            style = getattr(module, "paramstyle", None)
            if isinstance(style, str):
                return style
    return "qmark"


def _in_style(statement: str, values: dict[str, Any], style: str) -> tuple[str, Any]:
    """Rewrite a statement with ``:name`` parameters in the style of a driver."""
    names = re.findall(r":([a-z]+)", statement)
    if style == "named":
        return statement, values
    if style == "pyformat":
        return re.sub(r":([a-z]+)", r"%(\1)s", statement), values
    if style == "numeric":
        for number, name in enumerate(names, start=1):
            statement = statement.replace(f":{name}", f":{number}", 1)
    else:
        statement = re.sub(r":([a-z]+)", "%s" if style == "format" else "?", statement)
    return statement, [values[name] for name in names]
