"""The part of a client that makes tables of topics, and what it makes them with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla._arguments import keywords
from ottla._names import partition_numbers, topic_name
from ottla._scanning import Scanning, column_list
from ottla._topic_table import Table
from ottla.errors import ConfigError
from ottla.formats import as_format, raw

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from ottla._connection import Timeout
    from ottla.formats import Format
    from ottla.typing import (
        FormatName,
        IsolationLevel,
        KeyFormatName,
        OnDataLoss,
        OnErrorOfRow,
    )

__all__ = ["Tabling"]


class Tabling(Scanning):
    """The part of a :class:`Client` that makes tables of topics."""

    def table(
        self,
        topic: str,
        *,
        key: Format | KeyFormatName | None = None,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        partitions: Iterable[int] | None = None,
        path: str | os.PathLike[str] | None = None,
        refresh: bool = True,
        isolation_level: IsolationLevel | None = None,
        on_error: OnErrorOfRow = "raise",
        on_data_loss: OnDataLoss = "raise",
        progress: Any = False,
        threads: int | None = None,
        timeout: Timeout = 30.0,
    ) -> Table:
        """Return the latest row of each key of a topic, as a table that can be kept up to date.

        A record with a key replaces what the table has for it, and a tombstone deletes that. The
        topic is read from its beginning, or from where the table in ``path`` ended. Needs polars.

        Parameters
        ----------
        topic : str
            The name of the topic. Its records need keys.
        key : {ottla.raw(), ottla.text()}, optional
            What keys are: bytes (the default), or text, as ``"raw"`` or ``"text"``, too.
        value : Format, str or mapping, optional
            How values become columns, as for :meth:`scan`. Columns that are inferred from JSON are
            those of the first records for as long as the table lives.
        columns : sequence of str, optional
            The columns of the table, of those of a scan; by default the key and those of the value.
            What is left out costs nothing. Where a member of the values has the name of one of
            Kafka's columns, these are called ``"_kafka.key"`` and so on; each is a column here.
        partitions : iterable of int, optional
            The partitions to read; all by default.
        path : str or os.PathLike, optional
            A directory to keep the table in; made if it is not there. A program that starts again,
            after ``kill -9``, too, reads only what is new. The rows are mapped from files, not in
            the memory of the process. One table uses it at a time. Without it the table is in
            memory: about the size of its rows in Arrow's format, twice that while it is merged.
        refresh : bool, default True
            Whether to read the topic now. ``False`` leaves that to :meth:`Table.refresh` and
            :meth:`Table.changes`.
        isolation_level, on_data_loss, threads
            As for :meth:`scan`.
        on_error : {"raise", "null"}, default "raise"
            What to do with a value that cannot be decoded: raise :class:`DecodeError`, or make its
            columns null.
        progress : bool or object, default False
            Show progress; see :meth:`write`.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the bounds, in seconds. Reading them takes as long as it takes.

        Returns
        -------
        Table
            The table; ``to_polars()`` and others return its rows.

        Raises
        ------
        ConfigError
            When an argument is not acceptable, or the table in ``path`` was made with others.
        DecodeError
            When a record has no key, or a value does not match its format.
        DataLossError
            When records that the table needs are gone; see :meth:`Table.refresh`.
        StorageError
            When the directory is in use, or its files are not what was written.

        Examples
        --------
        Stream-table join: the rows of a topic, beside the latest row of another one.

        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("users", {"city": "Rome"}, key="ada")
        ...     _ = kafka.send("orders", {"user": "ada", "amount": 3})
        ...     users = kafka.table("users", key="text", value={"city": "utf8"}).to_polars()
        ...     orders = kafka.scan("orders", value={"user": "utf8", "amount": "int64"})
        ...     joined = orders.to_polars().join(users, left_on="user", right_on="key")
        ...     joined.select("user", "city", "amount").rows()
        [('ada', 'Rome', 3)]
        """
        options = keywords(Tabling.table, locals())
        options |= {
            "key": as_format(key, "key") or raw(),
            "value": as_format(value) or raw(),
            "columns": column_list(columns),
            "partitions": None if partitions is None else sorted({*partition_numbers(partitions)}),
            "path": None if path is None else Path(path),
        }
        _refuse(options)
        table = Table(self, topic_name(topic), options)
        if refresh:
            try:
                table.refresh(progress=progress, timeout=timeout)
            except BaseException:
                table.close()
                raise
        return table


def _refuse(options: Mapping[str, Any]) -> None:
    """Refuse what does not make rows of keys."""
    if options["key"].kind not in {"raw", "text"}:
        raise ConfigError(f"key={options['key']!r}: keys are read with ottla.raw() or ottla.text()")
    if options["value"].kind == "arrow_ipc":
        raise ConfigError(
            "value=ottla.arrow_ipc(): a record has many rows there, and a table has one for a key"
        )
    if options["on_error"] not in ("raise", "null"):
        raise ConfigError(
            f"on_error={options['on_error']!r}: for a table it is raise or null; a row that was "
            "set aside would leave an older one as the latest"
        )
    for name in options["columns"] or ():
        if not isinstance(name, str):
            raise TypeError(f"columns= of a table takes names, not {name!r}")
