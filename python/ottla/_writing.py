"""Sending single records and writing tables."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ottla import _progress
from ottla._aio import in_thread
from ottla._arguments import keywords
from ottla._bounds import Limit, milliseconds, seconds
from ottla._connection import Connection
from ottla._names import partition_number, topic_name
from ottla._records import Headers, Key, header_pairs, key_bytes, part_bytes
from ottla._tables import Source, rows_of, writable
from ottla.errors import KafkaError, RetentionWarning, say_written
from ottla.formats import Format, Header, as_format, json

if TYPE_CHECKING:
    from ottla._connection import Timeout
    from ottla._ottla import Client as _NativeClient
    from ottla._ottla import Pending, RecordMetadata, ValueEncoder
    from ottla._ottla import TransactionalProducer as _NativeTransactional
    from ottla.typing import Acks, CompressionType, FormatName

    #: What records go through.
    Sender = _NativeClient | _NativeTransactional

__all__ = ["Writing"]

#: How many encoders of single values are cached.
_ENCODERS_MAX = 64

#: Records younger than this are not checked: no topic deletes them so soon.
_OLD_MS = 60_000


def _header_columns(
    headers: str | Mapping[str, str] | Iterable[Header] | None,
) -> str | list[tuple[str, str]] | None:
    if headers is None or isinstance(headers, str):
        return headers
    if isinstance(headers, Mapping):
        return [(str(key), str(name)) for key, name in headers.items()]
    single = list(headers)
    for one in single:
        if not isinstance(one, Header):
            raise TypeError(
                "headers= takes the column of all headers, a mapping of keys to columns, or "
                f"a list of ottla.header(…), not of {type(one).__name__}"
            )
    return [(one.key, one.name) for one in single]


def _raise_as_it_was(error: BaseException, raised: BaseException | None) -> None:
    """Raise what the maker of the rows raised; whatever it is says what was acknowledged before."""
    rows, offsets = getattr(error, "written", None), getattr(error, "offsets", None)
    if rows is None:
        say_written(error, 0, {})
    if raised is None or raised is error or not isinstance(error, ValueError):
        return
    say_written(raised, rows or 0, offsets or {})
    raise raised from None


class Writing(Connection):
    """The part of a :class:`Client` that writes."""

    def __init__(self, native: _NativeClient) -> None:
        super().__init__(native)
        #: How single values are made, by topic and format.
        self._encoders: dict[tuple[str, Format], ValueEncoder] = {}

    def send(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Key = None,
        partition: int | None = None,
        timestamp: datetime | str | None = None,
        headers: Headers = None,
        value_format: Format | FormatName | None = None,
        timeout: Timeout = 120.0,
    ) -> RecordMetadata:
        """Send one record and wait until it is acknowledged.

        Parameters
        ----------
        topic : str
            The name of the topic.
        value : bytes, str or mapping, optional
            The value of the record; a str is sent as UTF-8, ``None`` as null (a tombstone). A
            mapping of names to values is encoded with ``value_format``.
        key : bytes, str, int, bool, Decimal, UUID, date, time or datetime, optional
            The key; a str is sent as UTF-8, an int as decimal text, others as the same text that
            ``write`` produces. Scalars of numpy and pandas count as the values they stand for.
        partition : int, optional
            The partition; by default the hash of the key decides, as in Java clients.
        timestamp : datetime.datetime or str, optional
            The timestamp of the record, a datetime or ISO 8601 text, UTC when it has no zone. Kafka
            keeps milliseconds: finer digits are cut off, downwards; in the value a time keeps them.
            By default, now.
        headers : mapping or sequence of pairs, optional
            Names and values; a name must be a str or UTF-8 bytes. A sequence may contain a name
            twice.
        value_format : Format, optional
            How a mapping is encoded: :func:`ottla.json` (the default for mappings),
            :func:`ottla.avro` or :func:`ottla.protobuf` with a schema or the latest one of a
            registry; :func:`ottla.arrow_ipc` encodes a whole table as one value. The value is the
            same as ``write`` produces for a row. The first value of a schema may have to wait for
            the registry.
        timeout : float or datetime.timedelta, default 120
            How long to wait, in seconds.

        Returns
        -------
        RecordMetadata
            ``topic``, ``partition``, ``offset`` and ``timestamp``.

        Raises
        ------
        TimeoutError
            When the record was not acknowledged in time; it may have been written nevertheless.
        MessageTooLargeError
            When the record is larger than the topic or the client accepts.
        TypeError
            When the value or a part of it has a type that cannot be written.

        Warns
        -----
        RetentionWarning
            When the timestamp is older than the topic's retention (``retention.ms``).

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     sent = kafka.send("greetings", "hello", key="en", headers={"to": "you"})
        ...     again = kafka.send("greetings", {"text": "hello", "to": ["you"]})
        ...     kafka.scan("greetings", value=ottla.text(), columns=["value"]).head().to_pylist()
        [{'value': 'hello'}, {'value': '{"text":"hello","to":["you"]}'}]
        >>> sent.topic, sent.offset
        ('greetings', 0)
        """
        limit = Limit(timeout)
        value = self._value(topic, value, value_format, limit.left())
        pending = self._send(
            topic, value, key, partition, timestamp, headers, hurry=True, limit=limit
        )
        result: RecordMetadata = pending.result(limit.left())
        return result

    def send_async(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Key = None,
        partition: int | None = None,
        timestamp: datetime | str | None = None,
        headers: Headers = None,
        value_format: Format | FormatName | None = None,
    ) -> Pending:
        """Send one record without waiting for its acknowledgement.

        Blocks only while ``buffer.memory`` is full, or while a schema registry is asked for the
        first value of a schema. The arguments are those of :meth:`send`; of ``timestamp``, too,
        the milliseconds count.

        Returns
        -------
        Pending
            ``await`` it, or call its ``result(timeout)``, for the :class:`RecordMetadata`.
        """
        limit = Limit(120.0)
        value = self._value(topic, value, value_format, limit.left())
        return self._send(
            topic, value, key, partition, timestamp, headers, hurry=False, limit=limit
        )

    def _value(
        self,
        topic: str,
        value: Any,
        value_format: Format | FormatName | None,
        timeout: float | None,
    ) -> bytes | None:
        """Return the bytes of one value."""
        chosen = as_format(value_format, "value_format")
        if chosen is None and isinstance(value, Mapping):
            chosen = json()
        if value is None or chosen is None:
            return part_bytes(value, "value")
        if chosen.kind in {"raw", "text"}:
            if isinstance(value, Mapping):
                raise TypeError(
                    f"a value of the format ottla.{chosen.kind}() is bytes or str as it is, not a "
                    'mapping: leave value_format= out, or pass value_format="json"'
                )
            return part_bytes(value, "value", of_mapping=False)
        name = (topic, chosen)
        try:
            encoder = self._encoders.get(name)
        except TypeError:  # A schema may be a mapping, which is not hashable.
            encoder = None
        if encoder is None:
            encoder = self._native.value_encoder(topic, chosen, timeout)
            # The latest schema of a registry may change; a given schema does not.
            if chosen.schema is not None or chosen.registry is None:
                while len(self._encoders) >= _ENCODERS_MAX:
                    self._encoders.pop(next(iter(self._encoders)), None)
                self._encoders[name] = encoder
        return encoder.encode(writable(value))

    def _send(
        self,
        topic: str,
        value: bytes | None,
        key: Key,
        partition: int | None,
        timestamp: datetime | str | None,
        headers: Headers,
        *,
        hurry: bool,
        limit: Limit,
        through: Sender | None = None,
    ) -> Pending:
        moment = None if timestamp is None else milliseconds(timestamp)
        if moment is not None:
            self._warn_of_retention(topic, moment, limit)
        return (through or self._native).send(
            topic_name(topic),
            value,
            key_bytes(key),
            None if partition is None else partition_number(partition),
            moment,
            header_pairs(headers),
            hurry,
            limit.left(),
        )

    def _warn_of_retention(self, topic: str, moment: int, limit: Limit) -> None:
        """Warn about a record that is older than its topic's retention."""
        age = time.time() * 1000 - moment
        if age < _OLD_MS:
            return
        try:
            kept = self._retentions[topic]
        except KeyError:
            try:
                kept = self._retentions[topic] = self._retention(topic, limit)
            except KafkaError:  # The topic may not exist yet; sending will find out.
                return
        if kept is not None and age > kept:
            period = str(timedelta(milliseconds=kept)).removesuffix(", 0:00:00")
            told = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=moment)
            message = (
                f"topic {topic} deletes records older than retention.ms={kept} ({period}), counted "
                f"from their timestamps, and this one has {told:%Y-%m-%d %H:%M:%S} UTC: expect it "
                'to be deleted. To keep old records, pass config={"retention.ms": -1} to '
                "create_topic, or change it with alter_configs"
            )
            warnings.warn(message, RetentionWarning, stacklevel=4)

    def _retention(self, topic: str, limit: Limit) -> int | None:
        """Return how many milliseconds a topic keeps records, by their own timestamps."""
        found = self._admin.describe_configs("topic", topic, limit.left())
        value = {name: str(setting["value"]) for name, setting in found.items()}
        policies = value.get("cleanup.policy", "").split(",")
        if "delete" not in policies or value.get("message.timestamp.type") == "LogAppendTime":
            return None
        kept = int(value.get("retention.ms", "-1"))
        return kept if kept >= 0 else None

    def write(
        self,
        topic: str,
        data: Any,
        *,
        key: str | None = None,
        partition: str | int | None = None,
        timestamp: str | None = None,
        headers: str | Mapping[str, str] | Iterable[Header] | None = None,
        value: Format | FormatName | None = None,
        acks: Acks | None = None,
        compression_type: CompressionType | None = None,
        progress: Any = False,
        timeout: Timeout = None,
    ) -> int:
        """Write a table, one record per row, and wait until all are acknowledged.

        With :func:`ottla.arrow_ipc` a record holds many rows.

        Parameters
        ----------
        topic : str
            The name of the topic.
        data : object with ``__arrow_c_stream__`` or ``__arrow_c_array__``, or list of dict
            A polars, pandas (2.2 or newer) or pyarrow table, a DuckDB relation, a scan, a batch …
            Or rows as dictionaries (this needs pyarrow): the columns are all their names, a name
            that a row lacks is null in it, and a column whose values have no common type that
            keeps them is refused. No rows are nothing to write.
            In pandas, each named level of the index is a column; an index of integers without a
            name only numbers the rows and is left out; any other index without a name is refused.
        key : str, optional
            The column of the key. Text is written as UTF-8, binary unchanged, integers as decimal
            text; booleans, decimals, UUIDs, dates and times (in UTC) as ``true``, ``1.50``,
            ``2026-11-21``, ``2026-11-21T09:30:00Z`` … Rows with the same key go to the same
            partition, as with Java clients.
        partition : str or int, optional
            The column of the partition, or one partition for all rows.
        timestamp : str, optional
            The column of the record's timestamp, of a timestamp or date type without nulls; UTC
            when it has no zone. Kafka keeps milliseconds: finer digits are cut off, downwards; as a
            column of the value the time keeps them. By default, now.
        headers : str, mapping of str to str, or iterable of Header, optional
            The column of the headers, of type list<struct<key: utf8, value: binary>>; or the
            columns of single headers, by the key of the header: ``{"trace": "trace_column"}`` or
            ``[ottla.header("trace", name="trace_column")]``. Their values are
            written like keys; a null means no header.
        value : Format, optional
            How the value is encoded: :func:`ottla.json` (an object of the columns),
            :func:`ottla.text` or :func:`ottla.raw` (one column), :func:`ottla.avro`,
            :func:`ottla.protobuf` or :func:`ottla.arrow_ipc`. The default is JSON of all columns
            except the headers, or a column ``value`` of text or bytes, unchanged, if all other
            columns are used for other parts of the record. If there are further columns, the format
            must be given. A scan or a batch is written as the records that it came from: they
            keep key, timestamp and headers unless others are named, and topic, partition, offset
            and timestamp type are left out. One that was read with ``on_error="null"`` or
            ``"column"`` is refused, as it hides what the values were. With a format, the rows of a
            scan or a batch are written as those of any table, but tombstones remain tombstones, and
            are refused in an Arrow IPC stream. A dataframe made of them has lost that knowledge: a
            tombstone is a row of nulls there. Request the column ``is_tombstone``, and write those
            rows with :meth:`send`, or read the topic with :func:`ottla.raw`, whose ``value`` is
            null for a tombstone.
        acks : {"all", 1, 0}, optional
            Which acknowledgement to wait for; by default the client's setting (all).
        compression_type : {"none", "gzip", "snappy", "lz4", "zstd"}, optional
            The codec; by default the client's setting.
        progress : bool or object, default False
            ``True`` shows a bar (tqdm where it is installed); or an object with ``update(count)``
            and ``close()``.
        timeout : float or datetime.timedelta, optional
            How long the whole call may take, in seconds. By default there is no limit except
            ``delivery.timeout.ms`` for each batch.

        Returns
        -------
        int
            The number of records.

        Raises
        ------
        KafkaError
            When a batch was refused; records of earlier batches stay written. ``error.written`` is
            the number of acknowledged rows, and ``error.offsets`` has the first offset and the one
            after the last for each partition. After a :class:`TimeoutError` or
            :class:`ConnectionError` more may have been written. What a generator of batches raises
            is raised as it is, with the same attributes.
        ConfigError
            When columns are unsuitable, or part of the table would be lost.

        Warns
        -----
        RetentionWarning
            When rows are older than the topic's retention (``retention.ms``, 7 days by default).

        Examples
        --------
        >>> import ottla, polars
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     orders = polars.DataFrame({"id": [1, 2], "amount": [9.5, 3.0]})
        ...     written = kafka.write("orders", orders, key="id")
        ...     again = kafka.scan("orders", value=ottla.json()).to_polars()
        >>> written, again["amount"].sum()
        (2, 12.5)
        """
        options = keywords(Writing.write, locals())
        return self._write(topic, data, options)

    write_async = in_thread(write)

    def _write(
        self, topic: str, data: Any, options: dict[str, Any], through: Sender | None = None
    ) -> int:
        """Write a table with the arguments of :meth:`write`."""
        progress, acks = options["progress"], options["acks"]
        shown = _progress.start(progress, rows_of(data), f"write {topic}")
        options = options | {
            "headers": _header_columns(options["headers"]),
            "value": as_format(options["value"]),
            "acks": None if acks is None else str(acks),
            "progress": shown.update,
            "timeout": seconds(options["timeout"]),
        }
        source = None
        try:
            source = Source(data)
            if isinstance(data, (list, tuple)) and not data:
                return 0
            native = through or self._native
            written, warning = native.write(topic_name(topic), source.rows, options)
        except BaseException as error:
            _raise_as_it_was(error, None if source is None else source.raised)
            raise
        finally:
            shown.close()
        if warning is not None:
            warnings.warn(warning, RetentionWarning, stacklevel=3)
        return written

    def flush(self, timeout: Timeout = None) -> None:
        """Wait until everything sent has been acknowledged or has failed.

        Parameters
        ----------
        timeout : float or datetime.timedelta, optional
            How long to wait, in seconds.

        Raises
        ------
        TimeoutError
            When some records are still in flight.
        """
        self._native.flush(seconds(timeout))
