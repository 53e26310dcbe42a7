"""How the bytes of a value become columns, and columns become bytes."""

from __future__ import annotations

import json as _json
import re as _re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla._registry import as_registry
from ottla._types import columns
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from ottla._registry import SchemaRegistry

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


@dataclass(frozen=True)
class Format:
    """A value format; created by the functions of this module, such as :func:`json`.

    Parameters
    ----------
    kind : {"raw", "text", "json", "avro", "protobuf", "debezium", "arrow_ipc"}
        The name of the format.
    schema : optional
        The columns of a JSON object, the text of a schema, or compiled descriptors.
    infer : int, default 1000
        How many records are read to infer the columns when no schema is given.
    exclude : tuple of str
        Columns to leave out when writing.
    column : str, default "value"
        The column of a raw or text value.
    registry : SchemaRegistry, optional
        The registry of the schemas.
    framed : bool, default False
        Whether values have the header of a schema registry.
    subject : str, optional
        The subject in the registry.
    latest : bool, default True
        Whether columns come from the subject's latest schema instead of that of the first value.
    register : bool, default True
        Whether to register a schema that the registry does not know.
    references : tuple of (name, subject, version)
        The schemas in the registry that the schema refers to.
    imports : tuple of (name, text)
        The files that a Protobuf schema imports.
    message : str, optional
        The name of a Protobuf message.
    time_unit : {"ns", "us"}, default "ns"
        The unit of Protobuf's times and durations.
    inner : Format, optional
        The format of Debezium's events.
    unwrap : bool, default False
        Whether the columns are those of the changed row.
    decimals : {"precise", "string"}, optional
        How decimals written as strings are read in Debezium's JSON events.
    max_rows : int, default 10000
        The most rows in a record that is an Arrow IPC stream.
    compression : {"lz4", "zstd"}, optional
        How the buffers of such a stream are compressed.
    extra : {"error", "ignore"}, optional
        What to do with members of a JSON object that are not among the columns.
    nan : {"error", "null", "text"}, default "error"
        How to write NaN and the infinities as JSON.
    """

    kind: str
    schema: Any = None
    infer: int = 1000
    exclude: tuple[str, ...] = ()
    column: str = "value"
    registry: SchemaRegistry | None = None
    framed: bool = False
    subject: str | None = None
    latest: bool = True
    register: bool = True
    references: tuple[tuple[str, str, int], ...] = ()
    imports: tuple[tuple[str, str], ...] = ()
    message: str | None = None
    time_unit: str = "ns"
    inner: Format | None = None
    unwrap: bool = False
    decimals: str | None = None
    max_rows: int = 10_000
    compression: str | None = None
    extra: str | None = None
    nan: str = "error"

    def __repr__(self) -> str:  # noqa: C901, PLR0912
        if self.kind in {"raw", "text"}:
            return f"ottla.{self.kind}({self.column!r})"
        if self.kind == "debezium":
            more = ", unwrap=True" if self.unwrap else ""
            if self.decimals is not None:
                more += f", decimals={self.decimals!r}"
            return f"ottla.debezium({self.inner!r}{more})"
        details = []
        if isinstance(self.schema, bytes):
            details.append("schema=…")
        elif self.schema is not None:
            details.append(f"schema={self.schema!r}")
        if self.message is not None:
            details.append(f"message={self.message!r}")
        if self.time_unit != Format.time_unit:
            details.append(f"time_unit={self.time_unit!r}")
        if self.registry is not None:
            details.append(f"registry={self.registry!r}")
        elif self.framed:
            details.append("framed=True")
        if self.subject is not None:
            details.append(f"subject={self.subject!r}")
        if not self.latest:
            details.append("columns_from='first'")
        if not self.register:
            details.append("auto_register=False")
        if self.max_rows != Format.max_rows:
            details.append(f"max_rows={self.max_rows}")
        if self.compression is not None:
            details.append(f"compression={self.compression!r}")
        if self.extra is not None:
            details.append(f"extra={self.extra!r}")
        if self.nan != Format.nan:
            details.append(f"nan={self.nan!r}")
        if self.exclude:
            details.append(f"exclude={list(self.exclude)!r}")
        return f"ottla.{self.kind}({', '.join(details)})"


@dataclass(frozen=True)
class Header:
    """A header as a column; created by :func:`header`.

    Parameters
    ----------
    key : str
        The key of the header.
    name : str
        The name of the column.
    text : bool
        Whether the column is text; bytes otherwise.
    """

    key: str
    name: str
    text: bool = True

    def __repr__(self) -> str:
        named = "" if self.name == self.key else f", name={self.name!r}"
        return f"ottla.header({self.key!r}{named}{'' if self.text else ', text=False'})"


def header(key: str, *, name: str | None = None, text: bool = True) -> Header:
    """Read one header of the records as a column; or write a column as a header.

    Parameters
    ----------
    key : str
        The key of the header. If a record has several, the last one counts; a record without it has
        null.
    name : str, optional
        The name of the column; by default the key.
    text : bool, default True
        Whether the column is text (string_view; a value that is not UTF-8 is a decode error) or
        bytes (binary_view).

    Returns
    -------
    Header
        For ``columns=`` of ``scan`` and ``consumer``, next to the names of other columns; and for
        ``headers=`` of ``write``, which accepts what a key may be, regardless of ``text``.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one", headers={"trace": "a1"})
    ...     kafka.scan("words", columns=["offset", ottla.header("trace")]).head().to_pylist()
    [{'offset': 0, 'trace': 'a1'}]
    """
    return Header(key, key if name is None else name, text)


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
    """
    return Format("text", column=column)


def json(
    schema: Any = None,
    *,
    infer: int = 1000,
    extra: str | None = None,
    framed: bool = False,
    nan: str = "error",
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
        exclude=_names(exclude),
    )


def _registered(
    kind: str,
    *,
    registry: SchemaRegistry | Mapping[str, Any] | str | None,
    columns_from: str,
    framed: bool | None,
    **options: Any,
) -> Format:
    """Return a format whose schemas may be in a registry."""
    known = as_registry(registry)
    if options["references"] and options["schema"] is None:
        raise ConfigError("references= needs a schema that refers to them")
    if options["references"] and known is None:
        raise ConfigError("the schema refers to others in a registry: pass registry=")
    if columns_from not in {"latest", "first"}:
        raise ConfigError(f"columns_from={columns_from!r}: use latest or first")
    return Format(
        kind,
        registry=known,
        framed=known is not None if framed is None else framed,
        latest=columns_from == "latest",
        **options,
    )


def avro(
    schema: Any = None,
    *,
    registry: SchemaRegistry | Mapping[str, Any] | str | None = None,
    subject: str | None = None,
    columns_from: str = "latest",
    auto_register: bool = True,
    references: Iterable[Any] = (),
    framed: bool | None = None,
    exclude: Iterable[str] = (),
) -> Format:
    """Read and write values as Avro records: one column per field.

    With a registry, values begin with its header (a zero byte and the id of the schema that they
    were written with), as from Confluent's serializers; without one they are just the datum,
    written with the given schema.

    The manual describes which types are written and read, and how: ``src/manual/types.md``.

    Parameters
    ----------
    schema : str, mapping, sequence, pathlib.Path or Schema, optional
        The schema: its JSON text, the same as Python values, the path of a file with it, or an
        object of confluent-kafka with ``schema_str`` (and ``references``). Values that were written
        with another schema are resolved to it: fields by name or alias, defaults, promotions.
    registry : SchemaRegistry, str or mapping, optional
        The registry, its URL, or the settings of confluent-kafka's registry client.
    subject : str, optional
        The subject in the registry; by default the topic's name with ``-value``.
    columns_from : {"latest", "first"}, default "latest"
        Without a schema, where the columns come from when reading: the latest schema of the
        subject, or the schema of the first value. They stay the same for the whole scan.
    auto_register : bool, default True
        When writing: register the schema under the subject if the registry does not know it. If
        False, the registry must know it; without a schema, the latest one of the subject is used.
    references : iterable of (name, subject, version), optional
        The schemas in the registry that the schema refers to: the name of a type, its subject and
        the version; or objects of confluent-kafka with these three. They are added to the
        ``references`` of a schema that is such an object itself.
    framed : bool, optional
        Whether values have the header; by default with a registry. ``framed=True`` without one
        skips the header, and reads with the given schema.
    exclude : iterable of str
        When writing: columns to leave out of the value. Columns used as key, partition, timestamp
        or headers are part of it only if the schema has them.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``. A record becomes
        columns, a nested record a struct; ``["null", T]`` a nullable T; any other union a struct
        with a member per branch; an enum a dictionary; decimals, dates, times and timestamps the
        Arrow types of that name.

    Raises
    ------
    ConfigError
        When reading has neither a schema nor a registry, or the schema is not valid.

    Examples
    --------
    >>> import ottla
    >>> import polars as pl
    >>> point = {
    ...     "type": "record",
    ...     "name": "Point",
    ...     "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "double"]}],
    ... }
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     rows = pl.DataFrame({"x": [1, 2], "y": [0.5, None]})
    ...     _ = kafka.write("points", rows, value=ottla.avro(point))
    ...     kafka.scan("points", value=ottla.avro(point), columns=["x", "y"]).head().to_pylist()
    [{'x': 1, 'y': 0.5}, {'x': 2, 'y': None}]
    """
    text, known = _schema_text(schema)
    return _registered(
        "avro",
        registry=registry,
        columns_from=columns_from,
        framed=framed,
        schema=text,
        exclude=_names(exclude),
        subject=subject,
        register=auto_register,
        references=(*known, *_references(references)),
    )


def protobuf(
    schema: Any = None,
    *,
    message: str | None = None,
    registry: SchemaRegistry | Mapping[str, Any] | str | None = None,
    subject: str | None = None,
    columns_from: str = "latest",
    auto_register: bool = True,
    references: Iterable[Any] = (),
    framed: bool | None = None,
    time_unit: str = "ns",
    exclude: Iterable[str] = (),
) -> Format:
    """Read and write values as Protobuf messages: one column per field.

    With a registry, values begin with its header (a zero byte, the id of the schema, and which of
    its messages it is), as from Confluent's serializers; without one they are just the message.
    Fields are found by number, so values of older and newer schemas can be read.

    The manual describes which types are written and read, and how: ``src/manual/types.md``.

    Parameters
    ----------
    schema : str, pathlib.Path, bytes, message class or Schema, optional
        The schema: the text of a ``.proto`` file; a path to one, whose imports are looked for in
        its folder; a serialized ``FileDescriptorSet`` (or the path of one: ``protoc
        --include_imports -o``); a message class generated by protoc; or an object of
        confluent-kafka with ``schema_str`` (and ``references``).
    message : str, optional
        The name of the message, full or short; not needed when the schema has only one. If the
        schema is derived from columns, the name to give the message.
    registry : SchemaRegistry, str or mapping, optional
        The registry, its URL, or the settings of confluent-kafka's registry client.
    subject : str, optional
        The subject in the registry; by default the topic's name with ``-value``.
    columns_from : {"latest", "first"}, default "latest"
        Without a schema, where the columns come from when reading: the latest schema of the
        subject (its first message, unless ``message`` names one), or the first value.
    auto_register : bool, default True
        When writing: register the schema under the subject if the registry does not know it, and
        the files that it imports before it, each under its name, as Confluent's serializers do
        (those of ``google/protobuf/`` are known everywhere). Without a schema, the latest one of
        the subject is used; only if there is none, one is derived from the columns.
    references : iterable of (name, subject, version), optional
        The schemas in the registry that the schema refers to: a file that it imports, its subject
        and the version; or objects of confluent-kafka with these three. They are added to the
        ``references`` of a schema that is such an object itself.
    framed : bool, optional
        Whether values have the header; by default with a registry. ``framed=True`` without one
        skips the header, and reads with the given schema.
    time_unit : {"ns", "us"}, default "ns"
        When reading: the unit of ``Timestamp`` and ``Duration``. Nanoseconds are exact, but only
        cover 1677 to 2262; microseconds cover all years. A value that the unit cannot hold exactly
        is a decode error.
    exclude : iterable of str
        When writing: columns to leave out of the value. Columns used as key, partition, timestamp
        or headers are part of it only if the message has them.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``. A field that is missing
        from a value is null if it is ``optional``, a message or part of a ``oneof``, and its
        default otherwise. Messages become structs, enums dictionaries of their names, ``Timestamp``
        and ``Duration`` the Arrow types in ``time_unit``, wrappers nullable values, and recursive
        messages binary.

    Raises
    ------
    ConfigError
        When reading has neither a schema nor a registry, or the schema is not valid; or when
        writing without a schema, if the type of a column has no Protobuf field.

    Notes
    -----
    A schema derived from columns has one message, named after the topic (``OrdersValue``) or by
    ``message``, whose fields are numbered like their columns, from 1: int64, uint64, int32 and
    uint32 (also for narrower integers), double, float, bool, string, bytes,
    ``google.protobuf.Timestamp`` and ``Duration``, lists as ``repeated``, maps, and structs as
    messages inside. Nullable columns are ``optional``; a null list or map is refused, since it
    would be read as an empty one, and a timestamp without a zone is UTC. Dates, times of day,
    decimals, lists of lists and columns of only nulls have no such field: cast them or leave them
    out. Since fields are identified by number, pass a schema, or use a registry, if the columns of
    tables change.

    Examples
    --------
    >>> import ottla
    >>> import polars as pl
    >>> point = 'syntax = "proto3"; message Point { int32 x = 1; optional double y = 2; }'
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     rows = pl.DataFrame({"x": [1, 2], "y": [0.5, None]})
    ...     _ = kafka.write("points", rows, value=ottla.protobuf(point))
    ...     scan = kafka.scan("points", value=ottla.protobuf(point), columns=["x", "y"])
    ...     scan.head().to_pylist()
    [{'x': 1, 'y': 0.5}, {'x': 2, 'y': None}]
    """
    imports: tuple[tuple[str, str], ...] = ()
    known: tuple[tuple[str, str, int], ...] = ()
    if isinstance(schema, Path):
        schema, imports = _proto_file(schema)
    elif hasattr(schema, "DESCRIPTOR") or hasattr(schema, "fields_by_name"):
        descriptor = getattr(schema, "DESCRIPTOR", schema)
        message = message or descriptor.full_name
        schema = _descriptor_set(descriptor.file)
    elif not isinstance(schema, bytes):
        schema, known = _schema_text(schema)
    if time_unit not in {"ns", "us"}:
        raise ConfigError(f"time_unit={time_unit!r}: use ns or us")
    return _registered(
        "protobuf",
        registry=registry,
        columns_from=columns_from,
        framed=framed,
        schema=schema,
        exclude=_names(exclude),
        subject=subject,
        register=auto_register,
        references=(*known, *_references(references)),
        imports=imports,
        message=message,
        time_unit=time_unit,
    )


def debezium(
    inner: Format | str | None = None, *, unwrap: bool = False, decimals: str | None = None
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
        with an event; columns that a table gets later are then not read, so pass a schema where
        that may happen. An event without a row, such as that of a truncation, has ``op``, ``ts_ms``
        and nulls. If rows are not structs (documents of MongoDB, which are JSON text), ``unwrap``
        returns ``before``, ``after`` and ``updateDescription`` unchanged, ``op`` and ``ts_ms``. The
        tombstone that follows a deletion is a row of nulls, marked by ``is_tombstone``. A value
        without ``op`` cannot be decoded.

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
    compression: str | None = None,
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
        null, one of another type is cast where that changes no value.
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
    if max_rows < 1:
        raise ConfigError(f"max_rows={max_rows} must be at least 1")
    if compression not in {None, "lz4", "zstd"}:
        raise ConfigError(f"compression={compression!r}: use lz4 or zstd")
    return Format(
        "arrow_ipc",
        schema=schema,
        max_rows=max_rows,
        compression=compression,
        exclude=_names(exclude),
    )


_IMPORT = _re.compile(r'\bimport\s+(?:public\s+|weak\s+)?"([^"]+)"')


def _proto_file(path: Path) -> tuple[str | bytes, tuple[tuple[str, str], ...]]:
    """Read a .proto file and its imports from its folder, or compiled descriptors."""
    if path.suffix != ".proto":
        return path.read_bytes(), ()
    found: dict[str, str] = {}
    main = path.read_text(encoding="utf-8")
    texts = [main]
    while texts:
        for name in _IMPORT.findall(texts.pop()):
            file = path.parent / name
            if name not in found and file.is_file():
                found[name] = file.read_text(encoding="utf-8")
                texts.append(found[name])
    return main, tuple(found.items())


def _descriptor_set(file: Any) -> bytes:
    """Return a serialized FileDescriptorSet of a file and its imports, which come first."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    found = FileDescriptorSet()
    seen = set()

    def add(one: Any) -> None:
        if one.name in seen:
            return
        seen.add(one.name)
        for other in one.dependencies:
            add(other)
        one.CopyToProto(found.file.add())

    add(file)
    serialized: bytes = found.SerializeToString()
    return serialized


def _names(exclude: Iterable[str]) -> tuple[str, ...]:
    if isinstance(exclude, str):
        raise ConfigError(f"exclude={exclude!r} is one string: pass a list of column names")
    return tuple(exclude)


def _references(references: Iterable[Any]) -> tuple[tuple[str, str, int], ...]:
    """Return the references of a schema, as name, subject and version."""
    found = []
    for one in references:
        if isinstance(one, Mapping):
            parts = [one.get(name) for name in ("name", "subject", "version")]
        elif hasattr(one, "subject"):
            parts = [one.name, one.subject, one.version]
        else:
            parts = [] if isinstance(one, str) else list(one)
        match parts:
            case [str(name), str(subject), int(version)]:
                found.append((name, subject, version))
            case _:
                raise TypeError(f"references= has {one!r}, not (name, subject, version)")
    return tuple(found)


def _schema_text(schema: Any) -> tuple[str | None, tuple[tuple[str, str, int], ...]]:
    """Return the text of a schema and its references."""
    if schema is None or isinstance(schema, str):
        return schema, ()
    if isinstance(schema, Path):
        return schema.read_text(encoding="utf-8"), ()
    if isinstance(schema, (Mapping, Sequence)):
        return _json.dumps(schema), ()
    text = getattr(schema, "schema_str", None)
    if not isinstance(text, str):
        raise TypeError(
            f"a schema must be its text, a mapping, a path or a Schema, not {type(schema).__name__}"
        )
    references = getattr(schema, "references", None) or ()
    return text, _references(references)
