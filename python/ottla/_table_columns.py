"""The columns of a table: as a scan has them, as they are stored, and as they are shown.

They are stored as ``kafka:…`` and ``value:…``, because a member of a value may have any name. Where
one has the name of one of Kafka's columns, those are all shown with the prefix ``_kafka.``, under
which a scan has them in a struct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla._kafka_columns import KAFKA, fields_of, kafka_struct
from ottla._runs import DELETED, KEY, PARTITION
from ottla.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ottla._ottla import RecordBatch

__all__ = ["TableColumns"]

#: In a scan they are dictionaries, each of its batches with its own.
_WORDS = ("topic", "timestamp_type")
#: What each row needs, whether it is shown or not.
_NEEDED = (KEY, PARTITION, DELETED)


class TableColumns:
    """Which columns of a scan make a table.

    Parameters
    ----------
    schema : mapping of str to str
        The columns of the scan and their types.
    wanted : sequence of str, optional
        The columns to show; the key and those of the value by default.
    is_text : bool
        Whether keys are text.
    """

    def __init__(
        self, schema: Mapping[str, str], wanted: Sequence[str] | None, *, is_text: bool
    ) -> None:
        self._polars = _frames.require("polars", "table()")
        self._is_text = is_text
        #: The struct of Kafka's columns, where the values have one of their names.
        self._struct = kafka_struct(schema)
        self.prefix = "" if self._struct is None else f"{self._struct}."
        #: The columns of the values and their types.
        self.fields = fields_of(schema)
        if wanted is None:
            self.shown = [KEY, *(f"value:{name}" for name in self.fields)]
        else:
            self.shown = [self._stored(name) for name in wanted]
        self._kept = [*dict.fromkeys([*_NEEDED, "kafka:offset", *self.shown])]
        #: The names to ask a scan for.
        self.asked = [self.name(stored) for stored in self._kept]

    def _stored(self, name: str) -> str:
        if name in self.fields:
            return f"value:{name}"
        short = name.removeprefix(self.prefix)
        if short in KAFKA and name.startswith(self.prefix):
            return f"kafka:{short}"
        known = [*(f"{self.prefix}{one}" for one in KAFKA), *self.fields]
        raise ConfigError(f"there is no column {name!r} for the table: {', '.join(known)}")

    def name(self, stored: str) -> str:
        """Return the name under which users see a column."""
        origin, _, name = stored.partition(":")
        return name if origin == "value" else f"{self.prefix}{name}"

    def rows(self, batch: RecordBatch, topic: str) -> Any:
        """Return the rows of a batch as they are stored."""
        polars = self._polars
        frame = polars.DataFrame(batch)
        rows = frame.select([self._column(stored) for stored in self._kept])
        if rows[KEY].null_count():
            place = _place(rows.filter(polars.col(KEY).is_null()), topic)
            raise DecodeError(
                f"{place} has no key, so it is not the row of anything: write the topic with key=, "
                "or name the partitions without such records with partitions="
            )
        if self._is_text:
            try:
                rows = rows.with_columns(polars.col(KEY).cast(polars.String))
            except polars.exceptions.ComputeError:
                place = _place(rows.slice(_first_without_text(rows[KEY])), topic)
                raise DecodeError(
                    f"the key of {place} is not UTF-8; read keys with ottla.raw()"
                ) from None
        return rows if "kafka:offset" in self.shown else rows.drop("kafka:offset")

    def _column(self, stored: str) -> Any:
        polars = self._polars
        origin, _, name = stored.partition(":")
        if origin == "value":
            return polars.col(name).alias(stored)
        column = polars.col(name)
        if self._struct is not None:
            column = polars.col(self._struct).struct.field(name)
        if name in _WORDS:
            column = column.cast(polars.String)
        return column.alias(stored)

    def show(self, rows: Any) -> Any:
        """Return stored rows as users see them."""
        return rows.select(
            [self._polars.col(stored).alias(self.name(stored)) for stored in self.shown]
        )

    def keys(self, rows: Any) -> Any:
        """Return the keys of stored rows as users see them."""
        return rows.select(self._polars.col(KEY).alias(self.name(KEY)))


def _first_without_text(keys: Iterable[bytes]) -> int:
    for at, key in enumerate(keys):
        try:
            key.decode()
        except UnicodeDecodeError:  # noqa: PERF203 (looked for once)
            return at
    return 0


def _place(rows: Any, topic: str) -> str:
    return f"the record at offset {rows['kafka:offset'][0]} of {topic}-{rows[PARTITION][0]}"
