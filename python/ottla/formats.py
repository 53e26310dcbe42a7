"""How the bytes of a value become columns, and columns become bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ottla._arguments import whole_number
from ottla._format import Format, Header, column_names, header
from ottla._schemas import avro, protobuf
from ottla._types import columns
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from typing import Literal

    from ottla.typing import BufferCompression

__all__ = [
    "Format",
    "Header",
    "arrow_ipc",
    "avro",
    "debezium",
    "header",
    "json",
    "protobuf",
    "raw",
    "text",
]


def raw(column: str = "value") -> Format:
    """Read and write values unchanged: one column of type binary_view.

    Parameters
    ----------
    column : str, default "value"
        The column of bytes that ``write`` takes; in a scan it is always called ``value``.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.write("blobs", [{"data": b"one"}], value=ottla.raw("data"))
    ...     kafka.scan("blobs", value=ottla.raw(), columns=["value"]).head().to_pylist()
    [{'value': b'one'}]
    """
    return Format("raw", column=column)


def text(column: str = "value") -> Format:
    """Read and write values as UTF-8: one column of type string_view.

    Parameters
    ----------
    column : str, default "value"
        The column of text that ``write`` takes; in a scan it is always called ``value``.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``. A value that is not
        UTF-8 is a decode error, handled by ``on_error``.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "Größe")
    ...     kafka.scan("words", value=ottla.text(), columns=["value"]).head().to_pylist()
    [{'value': 'Größe'}]
    """
    return Format("text", column=column)


def json(
    schema: Any = None,
    *,
    infer: int = 1000,
    extra: Literal["error", "ignore"] | None = None,
    framed: bool = False,
    nan: Literal["error", "null", "text"] = "error",
    exclude: Iterable[str] = (),
) -> Format:
    """Read and write values as JSON objects: one column per member.

    The manual describes which types are written and read, and how: ``src/manual/types.md``.

    Parameters
    ----------
    schema : mapping, schema or dtypes, optional
        The members to read and their types: a mapping of names to types, where a type is a string
        such as ``"int64"``, ``"float64"``, ``"utf8"``, ``"bool"``, ``"timestamp[ms, UTC]"``,
        ``"list<int64>"``, ``"struct<a: int64>"``, a Python type (``int``, ``list[str]``,
        ``datetime``), or an Arrow type (``pyarrow.int64()``); or a whole schema of pyarrow or
        polars, or the dtypes of a pandas dataframe. Members that are not in the schema are not
        read; missing ones are null. ``value={"id": "int64"}`` is short for
        ``value=ottla.json({"id": "int64"})``.
    infer : int, default 1000
        Without a schema: the number of objects from the start of the scan, or of what a consumer
        has fetched when it begins, whose members become the columns.
    extra : {"error", "ignore"}, optional
        What to do with a member that is not among the columns: treat the row as one that cannot be
        decoded (the default if the columns were inferred; its other members are decoded
        nevertheless), or ignore the member (the default with a schema).
    framed : bool, default False
        When reading: whether values begin with the header of a schema registry, as Confluent's JSON
        Schema serializers write it. It is skipped.
    nan : {"error", "null", "text"}, default "error"
        When writing: whether NaN and the infinities, which JSON cannot represent as numbers, are an
        error, null, or the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which a float
        column reads back.
    exclude : iterable of str
        When writing: columns to leave out of the value (the columns used as key, partition,
        timestamp or headers are part of the value unless they are named here).

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``.

    Examples
    --------
    >>> import ottla
    >>> ottla.json({"id": int, "when": ottla.ts("ms")})
    ottla.json(schema={'id': 'int64', 'when': 'timestamp[ms, UTC]'})
    """
    infer = whole_number("infer", infer)
    if infer < 1:
        raise ConfigError(f"infer={infer} must be at least 1")
    if extra not in {None, "error", "ignore"}:
        raise ConfigError(f"extra={extra!r}: use error or ignore")
    if nan not in {"error", "null", "text"}:
        raise ConfigError(f"nan={nan!r}: use error, null or text")
    if schema is not None:
        schema = columns(schema)
    return Format(
        "json",
        schema=schema,
        infer=infer,
        extra=extra,
        framed=framed,
        nan=nan,
        exclude=column_names(exclude),
    )


def debezium(
    inner: Format | Literal["json"] | None = None,
    *,
    unwrap: bool = False,
    decimals: Literal["precise", "string"] | None = None,
) -> Format:
    """Read values as Debezium change events: a row before and after a change.

    The manual describes the types of the columns: ``src/manual/types.md``.

    Parameters
    ----------
    inner : Format, optional
        The format of the events: :func:`json` (the default; with or without the ``schema`` and
        ``payload`` that Kafka Connect's converter adds; its schema is that of the row),
        :func:`avro` or :func:`protobuf`.
    unwrap : bool, default False
        Whether the columns are those of the row: as of after the change or, for a deletion, before
        it.
    decimals : {"precise", "string"}, optional
        How to read a string in a decimal column of a JSON event: as base64 of the unscaled number
        (``decimal.handling.mode=precise``, Debezium's default) or as digits (``string``). By
        default the ``schema`` sent with the event decides; without one, a string that could be both
        is a decode error. Numbers need neither.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan`` and ``consumer``. The columns are ``before`` and
        ``after`` (structs), ``source``, ``op`` (``c`` created, ``u`` updated, ``d`` deleted, ``r``
        read by a snapshot, ``t`` truncated) and ``ts_ms`` (timestamp[ms, UTC]); with ``unwrap``
        those of the row, ``op`` and ``ts_ms`` (``__op`` and ``__ts_ms`` where the row has such a
        column). The columns of the row are those before and after a change combined; without a
        schema they are inferred from the first events, with the types given by the ``schema`` sent
        with an event; a column that the table gets later is then an error of its records, so pass
        a schema or ``json(extra="ignore")`` where that may happen. An event without a row, such as
        that of a truncation, has ``op``, ``ts_ms`` and nulls. If rows are not structs (documents of
        MongoDB, which are JSON text), ``unwrap`` returns ``before``, ``after`` and
        ``updateDescription`` unchanged, ``op`` and ``ts_ms``. The tombstone that follows a deletion
        is a row of nulls, marked by ``is_tombstone``. A value without ``op`` cannot be decoded.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("users", '{"before": null, "after": {"id": 1}, "op": "c"}')
    ...     _ = kafka.send("users", '{"before": {"id": 1}, "after": null, "op": "d"}')
    ...     rows = ottla.debezium(ottla.json({"id": "int64"}), unwrap=True)
    ...     kafka.scan("users", value=rows, columns=["id", "op"]).head().to_pylist()
    [{'id': 1, 'op': 'c'}, {'id': 1, 'op': 'd'}]
    """
    if inner is None or inner == "json":
        inner = json()
    if not isinstance(inner, Format) or inner.kind not in {"json", "avro", "protobuf"}:
        raise ConfigError(f"debezium({inner!r}): events are json(), avro() or protobuf()")
    if decimals not in {None, "precise", "string"}:
        raise ConfigError(f"decimals={decimals!r}: use precise or string")
    return Format("debezium", inner=inner, unwrap=unwrap, decimals=decimals)


def arrow_ipc(
    schema: Any = None,
    *,
    max_rows: int = 10_000,
    compression: BufferCompression | None = None,
    exclude: Iterable[str] = (),
) -> Format:
    """Read and write values as Arrow IPC streams: a record holds the rows of its record batches.

    The manual describes which types are written and read, and how: ``src/manual/types.md``.

    Parameters
    ----------
    schema : mapping or Arrow schema, optional
        When reading: the columns and their types, as for :func:`json`; others are not read. By
        default the columns are those of the first value, and a value with others is an error.
        Columns, and members of structs at any depth, are found by name: one that a value lacks is
        null, one of another type is cast where that changes no value; text is read as another type
        where it is written as that type writes it (``"1.20"`` as a decimal of two digits).
    max_rows : int, default 10000
        When writing: the most rows in a record. A record also stays within the size of a batch (the
        topic's ``max.message.bytes``, at most about a megabyte).
    compression : {"lz4", "zstd"}, optional
        When writing: how the buffers within a stream are compressed. ``compression_type`` of
        ``write`` compresses whole batches instead, which every Kafka client can read.
    exclude : iterable of str
        When writing: columns to leave out of the stream.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``. Each row read has the
        offset, the key and so on of its record; a record without rows yields none, and a tombstone
        one of nulls. ``max_rows`` of a scan may end within a record; the ``offsets`` of that last
        batch then end before it, and continuing from there yields its first rows again.
        ``batch_rows`` counts records. Compressed streams may have up to 256 MiB each when
        decompressed.

        ``write`` combines rows into records in order; with a column of keys or partitions, only
        rows with the same ones. A timestamp or headers per row are refused. Text and bytes are
        written in Arrow's plain layouts.

    Examples
    --------
    >>> import ottla
    >>> import pyarrow as pa
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     records = kafka.write("points", pa.table({"x": [1, 2]}), value=ottla.arrow_ipc())
    ...     scan = kafka.scan("points", value=ottla.arrow_ipc(), columns=["offset", "x"])
    ...     records, scan.head().to_pylist()
    (1, [{'offset': 0, 'x': 1}, {'offset': 0, 'x': 2}])
    """
    if schema is not None:
        schema = columns(schema)
    max_rows = whole_number("max_rows", max_rows)
    if max_rows < 1:
        raise ConfigError(f"max_rows={max_rows} must be at least 1")
    if compression not in {None, "lz4", "zstd"}:
        raise ConfigError(f"compression={compression!r}: use lz4 or zstd")
    return Format(
        "arrow_ipc",
        schema=schema,
        max_rows=max_rows,
        compression=compression,
        exclude=column_names(exclude),
    )


def as_format(value: Any, argument: str = "value") -> Format | None:
    """Return the format given as a format, by name, or as the columns of JSON."""
    if value is None or isinstance(value, Format):
        return value
    known = {"raw": raw(), "text": text(), "json": json()}
    if isinstance(value, str) and value in known:
        return known[value]
    if isinstance(value, Mapping) or hasattr(value, "__arrow_c_schema__"):
        # A mapping alone gives the columns of JSON values.
        return json(value)
    raise ConfigError(
        f"{argument}={value!r}: pass ottla.raw(), text(), json(), avro() or another of "
        "ottla.formats"
    )
