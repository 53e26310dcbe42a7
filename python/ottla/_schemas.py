"""The formats whose values follow a schema: Avro and Protobuf, with or without a registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla._format import Format, column_names
from ottla._registry import as_registry
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from ottla._registry import SchemaRegistry

__all__ = ["avro", "protobuf"]


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
        exclude=column_names(exclude),
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
        exclude=column_names(exclude),
        subject=subject,
        register=auto_register,
        references=(*known, *_references(references)),
        imports=imports,
        message=message,
        time_unit=time_unit,
    )


_IMPORT = re.compile(r'\bimport\s+(?:public\s+|weak\s+)?"([^"]+)"')


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
        return json.dumps(schema), ()
    text = getattr(schema, "schema_str", None)
    if not isinstance(text, str):
        raise TypeError(
            f"a schema must be its text, a mapping, a path or a Schema, not {type(schema).__name__}"
        )
    references = getattr(schema, "references", None) or ()
    return text, _references(references)
