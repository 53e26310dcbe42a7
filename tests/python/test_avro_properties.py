"""Avro, by property: what fastavro writes is read, and the other way round, whatever the schema.

Schemas, values of them, and readers' schemas that differ from the writer's are made by hypothesis;
what fastavro makes of each is what a scan must make of it: the same value, or an error.
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import struct
import uuid
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from fastavro.schema import SchemaParseException
from hypothesis import given, settings
from hypothesis import strategies as st

import ottla
import properties
from properties import send
from registries import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ottla.formats import Format

Schema = Any
Record = dict[str, Any]
_topics = itertools.count()
UTC = dt.timezone.utc
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
SLOW = settings(properties.SLOW, max_examples=30)


@pytest.fixture(scope="module")
def schemas() -> Iterator[Registry]:
    """A registry for all examples of a property."""
    with Registry() as registry:
        yield registry


# --- schemas and their values --------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
INT = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1, 0, -1])
LONG = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1])
FLOAT = st.floats(width=32, allow_nan=False)
DOUBLE = st.floats(allow_nan=False)
TIMES = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31))  # noqa: DTZ001


def millis(moment: Any) -> Any:
    """Cut a time to milliseconds."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def logical(base: str, name: str, **more: int) -> Record:
    return {"type": base, "logicalType": name, **more}


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    context = Context(prec=100)
    numbers = st.integers(-most, most) | st.sampled_from([-most, most, 0, -1])
    return numbers.map(lambda one: Decimal(one).scaleb(-scale, context))


#: Types without a name, and their values.
PLAIN: list[tuple[Schema, st.SearchStrategy[Any]]] = [
    ("null", st.none()),
    ("boolean", st.booleans()),
    ("int", INT),
    ("long", LONG),
    ("float", FLOAT),
    ("double", DOUBLE),
    ("bytes", st.binary(max_size=20)),
    ("string", TEXT),
    (logical("string", "uuid"), st.uuids()),
    (logical("int", "date"), st.dates()),
    (logical("int", "time-millis"), st.times().map(millis)),
    (logical("long", "time-micros"), st.times()),
    (logical("long", "timestamp-millis"), TIMES.map(lambda one: millis(one.replace(tzinfo=UTC)))),
    (logical("long", "timestamp-micros"), TIMES.map(lambda one: one.replace(tzinfo=UTC))),
    (logical("long", "local-timestamp-millis"), TIMES.map(millis)),
    (logical("long", "local-timestamp-micros"), TIMES),
    (logical("bytes", "decimal", precision=12, scale=4), decimals(12, 4)),
    (logical("bytes", "decimal", precision=60, scale=0), decimals(60, 0)),
    # What breaks the rules of a logical type is the type that it is made of.
    (logical("bytes", "decimal"), st.binary(max_size=8)),
    (logical("long", "date"), LONG),
    (logical("int", "no-such-type"), INT),
]


class Namer:
    """Names for types, each once."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self) -> str:
        return f"T{next(self._numbers)}"


class Bare:
    """A value of one branch of a union; what stands for it in the columns is its member."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value


def branch_name(schema: Schema) -> str:
    """Return the name by which a union knows a type."""
    if isinstance(schema, dict):
        return str(schema["name"] if "name" in schema else schema["type"])
    return str(schema)


@st.composite
def typed(  # noqa: PLR0911
    draw: st.DrawFn, namer: Namer, depth: int
) -> tuple[Schema, st.SearchStrategy[Any]]:
    """Types, and strategies of their values as fastavro wants them."""
    deep = ["array", "map", "record", "union", "optional"] if depth > 0 else []
    shape = draw(st.sampled_from(["plain"] * 6 + ["enum", "fixed", "decimal", *deep]))
    inner = typed(namer, depth - 1)
    if shape == "enum":
        symbols = draw(st.lists(st.sampled_from("ABCDEFG"), min_size=1, max_size=4, unique=True))
        return {"type": "enum", "name": namer(), "symbols": symbols}, st.sampled_from(symbols)
    if shape == "fixed":
        size = draw(st.integers(1, 20))
        kind = {"type": "fixed", "name": namer(), "size": size}
        return kind, st.binary(min_size=size, max_size=size)
    if shape == "decimal":
        kind = {"name": namer(), "size": 16, **logical("fixed", "decimal", precision=30, scale=5)}
        return kind, decimals(30, 5)
    if shape == "array":
        items, values = draw(inner)
        return {"type": "array", "items": items}, st.lists(values, max_size=3)
    if shape == "map":
        items, values = draw(inner)
        return {"type": "map", "values": items}, st.dictionaries(TEXT, values, max_size=3)
    if shape == "record":
        return draw(records(namer, depth - 1))
    if shape == "optional":
        kind, values = draw(inner)
        if isinstance(kind, list) or kind == "null":
            return kind, values
        first = draw(st.booleans())
        return ["null", kind] if first else [kind, "null"], st.none() | values
    if shape == "union":
        return draw(unions(namer, depth - 1))
    plain: tuple[Schema, st.SearchStrategy[Any]] = draw(st.sampled_from(PLAIN))
    return plain


@st.composite
def unions(draw: st.DrawFn, namer: Namer, depth: int) -> tuple[Schema, st.SearchStrategy[Any]]:
    """Unions of several types."""
    branches = draw(st.lists(typed(namer, depth), min_size=1, max_size=4))
    kept: dict[str, tuple[Schema, Any]] = {}
    for kind, values in branches:
        if not isinstance(kind, list):
            kept.setdefault(branch_name(kind), (kind, values))
    if not kept:
        return "null", st.none()
    kinds = [kind for kind, _ in kept.values()]
    chosen = [
        values.map(lambda value, name=name: None if name == "null" else Bare(name, value))
        for name, (_, values) in kept.items()
    ]
    return kinds, st.one_of(chosen)


@st.composite
def records(draw: st.DrawFn, namer: Namer, depth: int) -> tuple[Schema, st.SearchStrategy[Any]]:
    """Records."""
    members = draw(st.lists(typed(namer, depth), max_size=4))
    fields = [{"name": f"f{at}", "type": kind} for at, (kind, _) in enumerate(members)]
    values = {f"f{at}": values for at, (_, values) in enumerate(members)}
    return {"type": "record", "name": namer(), "fields": fields}, st.fixed_dictionaries(values)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Schema, list[Record]]:
    """A record's schema, and values of it."""
    namer = Namer()
    schema, values = draw(records(namer, 3).filter(lambda one: one[0]["fields"]))
    return schema, draw(st.lists(values, min_size=1, max_size=5))


def for_fastavro(value: Any, schema: Schema) -> Any:  # noqa: PLR0911
    """Return a value with the branches of its unions as the index of a tuple."""
    if isinstance(value, Bare):
        kinds = {branch_name(kind): kind for kind in schema}
        inner = for_fastavro(value.value, kinds[value.name])
        return (value.name, inner)
    if isinstance(schema, list):
        if value is None:
            return None
        (kind,) = [one for one in schema if one != "null"]
        return (branch_name(kind), for_fastavro(value, kind))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "array":
        return [for_fastavro(one, schema["items"]) for one in value]
    if kind == "map":
        return {key: for_fastavro(one, schema["values"]) for key, one in value.items()}
    if kind == "record":
        return {
            field["name"]: for_fastavro(value[field["name"]], field["type"])
            for field in schema["fields"]
        }
    return value


def as_columns(value: Any, schema: Schema) -> Any:  # noqa: PLR0911
    """Return what the columns show of a value."""
    if isinstance(schema, list):
        branches = [kind for kind in schema if kind != "null"]
        if value is None:
            return None
        if not isinstance(value, Bare):
            return as_columns(value, branches[0])
        inner = {
            branch_name(kind): as_columns(value.value, kind)
            if branch_name(kind) == value.name
            else None
            for kind in branches
        }
        return inner if len(branches) > 1 else inner[value.name]
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "array":
        return [as_columns(one, schema["items"]) for one in value]
    if kind == "map":
        return {key: as_columns(one, schema["values"]) for key, one in value.items()}
    if kind == "record":
        return {
            field["name"]: as_columns(value[field["name"]], field["type"])
            for field in schema["fields"]
        }
    return str(value) if isinstance(value, uuid.UUID) else value


def parsed(schema: Schema) -> Any:
    """Return a schema for fastavro, which insists on the precision of decimals."""
    nameless = json.dumps(logical("bytes", "decimal"))
    return fastavro.parse_schema(json.loads(json.dumps(schema).replace(nameless, '"bytes"')))


def encode(schema: Schema, value: Any) -> bytes:
    target = io.BytesIO()
    fastavro.schemaless_writer(target, parsed(schema), value)
    return target.getvalue()


def decode(schema: Schema, data: bytes) -> Any:
    source = io.BytesIO(data)
    value = fastavro.schemaless_reader(source, parsed(schema), None)
    assert not source.read()
    return value


@SLOW
@given(tables())
def test_values_of_any_schema_are_read_and_written(
    shared: ottla.Client, table: tuple[Schema, list[Record]]
) -> None:
    schema, values = table
    encoded = [encode(schema, for_fastavro(value, schema)) for value in values]
    topic = send(shared, encoded)
    names = [field["name"] for field in schema["fields"]]
    value = ottla.avro(schema)
    scan = shared.scan(topic, value=value, columns=names)
    assert scan.head(10).to_pylist() == [as_columns(one, schema) for one in values]
    # Written again, they are the values that fastavro wrote.
    other = f"{topic}.again"
    shared.create_topic(other)
    shared.write(other, scan.to_pyarrow(), value=value)
    again = shared.scan(other).head(10)["value"].to_pylist()
    assert [decode(schema, one) for one in again] == [decode(schema, one) for one in encoded]


@SLOW
@given(tables(), st.data())
def test_damaged_values_are_errors_or_other_values(
    shared: ottla.Client, table: tuple[Schema, list[Record]], data: st.DataObject
) -> None:
    schema, values = table
    encoded = [encode(schema, for_fastavro(value, schema)) for value in values]
    damaged = []
    for one in encoded:
        at = data.draw(st.integers(0, len(one)))
        damaged += [one[:at], one + b"\0", one[:at] + data.draw(st.binary(max_size=3)) + one[at:]]
    topic = send(shared, damaged)
    names = [*(field["name"] for field in schema["fields"]), "error"]
    found = shared.scan(topic, value=ottla.avro(schema), columns=names, on_error="column").head(100)
    for value, row in zip(damaged, found.to_pylist(), strict=True):
        if row["error"] is None:
            try:
                expected = decode(schema, value)
            except (ValueError, IndexError, EOFError, AssertionError, OverflowError, struct.error):
                # Their form is right, and Python has no such time.
                continue
            assert set(expected) == set(names) - {"error"}
        else:
            assert {row[name] for name in names if name != "error"} == {None}


# --- pairs of schemas ----------------------------------------------------------------------------

WIDER = {
    "int": ["long", "float", "double"],
    "long": ["float", "double"],
    "float": ["double"],
    "string": ["bytes"],
    "bytes": ["string"],
}
OTHER = {"int": "string", "string": "long", "boolean": "int", "double": "float", "bytes": "int"}
SMALL: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**20), 2**20),
    "long": st.integers(-(2**20), 2**20),
    "float": FLOAT.filter(lambda one: abs(one) < 1e30),
    "double": DOUBLE,
    "bytes": TEXT.map(str.encode),
    "string": TEXT,
}
PLAIN_PAIRS = [
    *((kind, kind) for kind in SMALL),
    *((kind, wider) for kind, all_wider in WIDER.items() for wider in all_wider),
    *OTHER.items(),
]
SYMBOLS = ["RED", "GREEN", "BLUE", "BLACK"]


@st.composite
def pairs(  # noqa: C901
    draw: st.DrawFn, name: str, depth: int
) -> tuple[Schema, Schema, Any]:
    """A writer's type, a reader's, and a strategy of the writer's values.

    Branches of unions are told apart by the Python types of their values.
    """
    change = draw(st.sampled_from(["none", "none", "none", "other", "union", "branch"]))
    deep = ["array", "map", "record", "union"] if depth > 0 else []
    shape = draw(st.sampled_from(["plain", "plain", "plain", "enum", "fixed", *deep]))
    inner = pairs(f"{name}_", depth - 1)
    writer: Schema
    reader: Schema
    if shape == "plain":
        writer, reader = draw(st.sampled_from(PLAIN_PAIRS))
        values = SMALL[writer]
    elif shape == "enum":
        known = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=4, unique=True))
        writer = {"type": "enum", "name": f"{name}Enum", "symbols": known}
        values = st.sampled_from(known)
        kept = draw(st.permutations([*known, "WHITE"]))[: draw(st.integers(1, 4))]
        reader = {**writer, "symbols": kept}
        if draw(st.booleans()):
            reader["default"] = kept[0]
    elif shape == "fixed":
        size = draw(st.integers(1, 4))
        writer = {"type": "fixed", "name": f"{name}Fixed", "size": size}
        reader = {**writer, "size": size + (change == "other")}
        values = st.binary(min_size=size, max_size=size)
    elif shape == "array":
        items, wanted, value = draw(inner)
        writer, reader = {"type": "array", "items": items}, {"type": "array", "items": wanted}
        values = st.lists(value, min_size=1, max_size=3)
    elif shape == "map":
        items, wanted, value = draw(inner)
        writer, reader = {"type": "map", "values": items}, {"type": "map", "values": wanted}
        values = st.dictionaries(TEXT, value, min_size=1, max_size=3)
    elif shape == "record":
        writer, reader, values = draw(record_pairs(f"{name}Record", depth - 1))
    else:
        writer, reader, values = draw(inner)
        if not isinstance(writer, list) and not isinstance(reader, list):
            writer = ["null", writer] if draw(st.booleans()) else [writer, "null"]
            values = st.none() | values
            if draw(st.booleans()):
                reader = [reader, "null"]
        return writer, reader, values
    if change == "union" and not isinstance(reader, list):
        reader = ["null", reader]
    elif change == "branch" and writer in ("int", "string") and not isinstance(reader, list):
        other = "boolean" if reader != "boolean" else "string"
        reader = [other, reader]
    return writer, reader, values


DEFAULTS: list[tuple[Schema, Any, Any]] = [
    ("int", 7, 7),
    ("double", 7, 7.0),
    ("string", "é", "é"),
    ("bytes", "ÿ\u0001", b"\xff\x01"),
    (["null", "int"], None, None),
    (["int", "null"], 5, 5),
    ({"type": "array", "items": "long"}, [1, 2], [1, 2]),
    ({"type": "map", "values": "boolean"}, {"k": True}, {"k": True}),
    ("boolean", False, False),
]


@st.composite
def record_pairs(draw: st.DrawFn, name: str, depth: int) -> tuple[Schema, Schema, Any]:
    """Records whose fields were moved, renamed, added and left out."""
    writer_fields: list[Record] = []
    reader_fields: list[Record] = []
    values = {}
    for at in range(draw(st.integers(1, 4))):
        field = f"f{at}"
        writer, reader, value = draw(pairs(f"{name}{at}", depth))
        writer_fields.append({"name": field, "type": writer})
        values[field] = value
        fate = draw(st.sampled_from(["kept", "kept", "kept", "left out", "renamed"]))
        if fate == "kept":
            reader_fields.append({"name": field, "type": reader})
        elif fate == "renamed":
            reader_fields.append({"name": f"r{at}", "type": reader, "aliases": ["x", field]})
    for at in range(draw(st.integers(0, 2))):
        kind, default, _ = draw(st.sampled_from(DEFAULTS))
        added: Record = {"name": f"a{at}", "type": kind}
        if draw(st.integers(0, 5)) > 0:
            added["default"] = default
        reader_fields.append(added)
    reader_fields = list(draw(st.permutations(reader_fields)))
    if not reader_fields:
        reader_fields = [{"name": "only", "type": "int", "default": 1}]
    return (
        {"type": "record", "name": name, "fields": writer_fields},
        {"type": "record", "name": name, "fields": reader_fields},
        st.fixed_dictionaries(values),
    )


def flat(found: Any, expected: Any) -> Any:
    """Return a value of columns as fastavro shows it: a union as the member that is set."""
    if isinstance(found, dict) and not isinstance(expected, dict):
        members = [one for one in found.values() if one is not None]
        return flat(members[0], expected) if members else None
    if isinstance(found, dict):
        return {name: flat(one, expected.get(name)) for name, one in found.items()}
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [flat(*both) for both in zip(found, expected, strict=True)]
    if isinstance(found, bytes) and isinstance(expected, str):
        # A default of bytes, which fastavro leaves as the text that it is in the schema.
        return found.decode("latin-1")
    return found


@settings(SLOW, max_examples=150)
@given(record_pairs("Row", 2), st.booleans(), st.data())
def test_a_readers_schema_is_resolved_as_fastavro_does(
    shared: ottla.Client,
    schemas: Registry,
    pair: tuple[Schema, Schema, Any],
    wrapped: bool,
    data: st.DataObject,
) -> None:
    writer, reader, strategy = pair
    values = data.draw(st.lists(strategy, min_size=1, max_size=4))
    written: Schema = ["null", writer] if wrapped else writer
    number = schemas.register(f"subject-{next(_topics)}", written)
    header = b"\0" + struct.pack(">I", number)
    encoded = [encode(written, value) for value in values]
    topic = send(shared, [header + one for one in encoded])
    names = [*(field["name"] for field in reader["fields"]), "error"]
    value: Format = ottla.avro(reader, registry=schemas.url)
    scan = shared.scan(topic, value=value, columns=names, on_error="column")
    rows = scan.head(10).to_pylist()
    for one, row in zip(encoded, rows, strict=True):
        error = row.pop("error")
        told = json.dumps([written, reader, repr(one), error])
        try:
            expected = fastavro.schemaless_reader(
                io.BytesIO(one), fastavro.parse_schema(written), fastavro.parse_schema(reader)
            )
        except (fastavro.read.SchemaResolutionError, SchemaParseException, UnicodeDecodeError):
            assert error is not None, told
            assert set(row.values()) == {None}, told
            continue
        assert error is None, told
        assert flat(row, expected) == expected, told
