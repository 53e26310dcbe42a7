"""Protobuf, by property: messages of any schema, against Google's ``protobuf`` package.

Descriptors and messages are made by hypothesis. What the package serializes is read; what is
written from the columns is parsed by the package as the same message; and bytes in any order, with
fields that came twice, unknown ones and damage are read as the package reads them, or are errors.
"""

from __future__ import annotations

import itertools
import struct
import warnings
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

import ottla
import properties
from properties import send

_numbers = itertools.count()
Field = descriptor_pb2.FieldDescriptorProto
SLOW = settings(properties.SLOW, max_examples=40)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
I32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1, 0, -1])
I64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, -1])
U32 = st.integers(0, 2**32 - 1) | st.sampled_from([2**32 - 1, 0])
U64 = st.integers(0, 2**64 - 1) | st.sampled_from([2**64 - 1, 0])
#: The kinds of fields that hold one value, and the values.
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    Field.TYPE_DOUBLE: st.floats(allow_nan=False),
    Field.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    Field.TYPE_INT64: I64,
    Field.TYPE_SINT64: I64,
    Field.TYPE_SFIXED64: I64,
    Field.TYPE_UINT64: U64,
    Field.TYPE_FIXED64: U64,
    Field.TYPE_INT32: I32,
    Field.TYPE_SINT32: I32,
    Field.TYPE_SFIXED32: I32,
    Field.TYPE_UINT32: U32,
    Field.TYPE_FIXED32: U32,
    Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_STRING: TEXT,
    Field.TYPE_BYTES: st.binary(max_size=8),
}
KEYS = [
    kind for kind in SCALARS if kind not in {Field.TYPE_DOUBLE, Field.TYPE_FLOAT, Field.TYPE_BYTES}
]
ENUM = {"NONE": 0, "ONE": 1, "MINUS": -1, "FAR": 2**31 - 1}


def camel(name: str) -> str:
    """Return the name of the message that holds the entries of a map."""
    return "".join(part.capitalize() for part in name.split("_")) + "Entry"


@st.composite
def messages(  # noqa: C901, PLR0912, PLR0915
    draw: st.DrawFn, target: Any, full: str, syntax: str, depth: int
) -> st.SearchStrategy[Any]:
    """Fill a descriptor with fields; the strategy gives mappings of names to values."""
    strategies: dict[str, Any] = {}
    enum = target.enum_type.add(name="E")
    for name, number in ENUM.items():
        enum.value.add(name=name, number=number)
    numbers = draw(
        st.lists(
            st.integers(1, 40) | st.sampled_from([15, 16, 2047, 2048, 18_999, 2**29 - 1]),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    choices: dict[str, Any] = {}
    for at, number in enumerate(numbers):
        name = f"f_{at}"
        shapes = ["one", "one", "optional", "many", "map", "choice", "wrapper", "time"]
        shape = draw(st.sampled_from(shapes))
        kind = draw(st.sampled_from([*SCALARS, Field.TYPE_ENUM, Field.TYPE_MESSAGE]))
        if kind == Field.TYPE_MESSAGE and (depth == 0 or shape == "map"):
            kind = Field.TYPE_STRING
        field = target.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
        if shape == "wrapper":
            field.type, field.type_name = Field.TYPE_MESSAGE, ".google.protobuf.Int64Value"
            strategies[name] = st.none() | I64
            continue
        if shape == "time":
            field.type, field.type_name = Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"
            # Those that 64-bit nanoseconds reach.
            strategies[name] = st.none() | st.integers(-(2**63), 2**63 - 1)
            continue
        if shape == "map":
            key = draw(st.sampled_from(KEYS))
            entry = target.nested_type.add(name=camel(name))
            entry.options.map_entry = True
            for part, part_kind, place in (("key", key, 1), ("value", kind, 2)):
                inner = entry.field.add(name=part, number=place, label=Field.LABEL_OPTIONAL)
                inner.type = part_kind
                if part_kind == Field.TYPE_ENUM:
                    inner.type_name = f"{full}.E"
            field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
            field.type_name = f"{full}.{entry.name}"
            values = st.sampled_from([*ENUM]) if kind == Field.TYPE_ENUM else SCALARS[kind]
            strategies[name] = st.dictionaries(SCALARS[key], values, max_size=3)
            continue
        field.type = kind
        if kind == Field.TYPE_ENUM:
            field.type_name = f"{full}.E"
            values = st.sampled_from([*ENUM])
        elif kind == Field.TYPE_MESSAGE:
            nested = target.nested_type.add(name=f"M{at}")
            field.type_name = f"{full}.M{at}"
            values = draw(messages(nested, f"{full}.M{at}", syntax, depth - 1))
        else:
            values = SCALARS[kind]
        is_message = kind == Field.TYPE_MESSAGE
        if shape == "many":
            field.label = Field.LABEL_REPEATED
            strategies[name] = st.lists(values, max_size=4)
            if kind in SCALARS and kind not in {Field.TYPE_STRING, Field.TYPE_BYTES}:
                field.options.packed = draw(st.booleans())
        elif shape == "choice":
            field.oneof_index = 0
            choices[name] = values
        elif shape == "optional" or syntax == "proto2" or is_message:
            strategies[name] = st.none() | values
            if syntax == "proto3" and not is_message:
                field.proto3_optional = True
        else:
            strategies[name] = values
    if choices:
        target.oneof_decl.add(name="choice")
    for field in target.field:
        if field.proto3_optional:
            field.oneof_index = len(target.oneof_decl)
            target.oneof_decl.add(name=f"_{field.name}")
    plain = st.fixed_dictionaries(strategies)
    if not choices:
        return plain
    nothing = dict.fromkeys(choices)
    chosen = [
        values.map(lambda value, name=name: {**nothing, name: value})
        for name, values in choices.items()
    ]
    return st.tuples(plain, st.one_of(st.just(nothing), *chosen)).map(lambda two: two[0] | two[1])


@st.composite
def files(draw: st.DrawFn) -> tuple[Any, st.SearchStrategy[Any]]:
    """A class of messages, and a strategy of values."""
    syntax = draw(st.sampled_from(["proto2", "proto3"]))
    file = descriptor_pb2.FileDescriptorProto(
        name=f"file{next(_numbers)}.proto", package="p", syntax=syntax
    )
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    values = draw(messages(file.message_type.add(name="M"), ".p.M", syntax, 2))
    pool = descriptor_pool.DescriptorPool()
    for needed in ("timestamp", "wrappers"):
        module = __import__(f"google.protobuf.{needed}_pb2", fromlist=["DESCRIPTOR"])
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("p.M"))
    return made, values


def fill(message: Any, values: dict[str, Any]) -> Any:  # noqa: C901
    """Set the fields of a message."""
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if value is None:
            continue
        if field.message_type is None:
            if field.is_repeated:
                getattr(message, name).extend(_number(field, one) for one in value)
            else:
                setattr(message, name, _number(field, value))
        elif field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            for key, one in value.items():
                getattr(message, name)[key] = _number(kind, one)
        elif field.is_repeated:
            for one in value:
                fill(getattr(message, name).add(), one)
        elif field.message_type.full_name == "google.protobuf.Int64Value":
            getattr(message, name).value = value
            getattr(message, name).SetInParent()
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            inner = getattr(message, name)
            inner.seconds, inner.nanos = divmod(value, 10**9)
            inner.SetInParent()
        else:
            inner = getattr(message, name)
            inner.SetInParent()
            fill(inner, value)
    return message


def _number(field: Any, value: Any) -> Any:
    return ENUM[value] if field.enum_type is not None else value


def shown(message: Any) -> dict[str, Any]:
    """Return what the columns show of a message."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            inner = kind.fields_by_name["value"]
            found[field.name] = {key: _one(inner, value[key]) for key in value}
        elif field.is_repeated:
            found[field.name] = [_one(field, one) for one in value]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _one(field, value)
    return found


def _one(field: Any, value: Any) -> Any:
    kind = field.message_type
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if kind is None:
        return value
    if kind.full_name == "google.protobuf.Int64Value":
        return value.value
    if kind.full_name == "google.protobuf.Timestamp":
        return value.seconds * 10**9 + value.nanos
    return shown(value)


def _sorted(value: Any) -> Any:
    """Return a value whose mappings are in one order; so that NaN equals itself, it is shown."""
    if isinstance(value, dict):
        pairs = [(repr(key), _sorted(one)) for key, one in value.items()]
        return sorted(pairs, key=lambda pair: pair[0])
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def rows_of(table: Any, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a table, times as numbers."""
    import pyarrow as pa

    made = {}
    for name in columns:
        column = table[name].combine_chunks()
        made[name] = _times(column, pa)
    with warnings.catch_warnings():
        # Of two entries with one key the later one counts, as in Protobuf.
        warnings.filterwarnings("ignore", "Encountered key", UserWarning)
        rows: list[dict[str, Any]] = pa.table(made).to_pylist(maps_as_pydicts="lossy")
    return rows


def _times(column: Any, pa: Any) -> Any:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.view(pa.int64())
    if pa.types.is_struct(kind):
        if kind.num_fields == 0:
            return column
        parts = [_times(part, pa) for part in column.flatten()]
        names = [kind.field(at).name for at in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, names=names, mask=column.is_null())
    if pa.types.is_list(kind):
        items = _times(column.values, pa)
        return pa.ListArray.from_arrays(column.offsets, items, mask=column.is_null())
    return column


@SLOW
@given(files(), st.data())
def test_messages_of_any_schema_are_read_and_written(
    shared: ottla.Client, file: tuple[Any, Any], data: st.DataObject
) -> None:
    made, strategy = file
    values = data.draw(st.lists(strategy, min_size=1, max_size=4))
    sent = [fill(made(), value) for value in values]
    topic = send(shared, [one.SerializeToString() for one in sent])
    names = [field.name for field in made.DESCRIPTOR.fields]
    value = ottla.protobuf(made)
    table = shared.scan(topic, value=value, columns=names).to_pyarrow()
    assert rows_of(table, names) == [shown(one) for one in sent]
    # Written again, they are the same messages.
    other = f"{topic}.again"
    shared.create_topic(other)
    shared.write(other, table, value=value)
    again = shared.scan(other).head(10)["value"].to_pylist()
    assert [made.FromString(one) for one in again] == sent


def varint(number: int) -> bytes:
    """Return a number as Protobuf writes it."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def field_bytes(number: int, wire: int, payload: bytes) -> bytes:
    return varint(number << 3 | wire) + payload


PAYLOADS = st.one_of(
    st.integers(0, 2**64 - 1).map(lambda number: (0, varint(number))),
    st.integers(0, 2**64 - 1).map(lambda number: (1, struct.pack("<Q", number))),
    st.binary(max_size=6).map(lambda one: (2, varint(len(one)) + one)),
    st.integers(0, 2**32 - 1).map(lambda number: (5, struct.pack("<I", number))),
)


@SLOW
@given(files(), st.data())
def test_bytes_that_nobody_would_write_are_read_as_others_do_or_are_errors(
    shared: ottla.Client, file: tuple[Any, Any], data: st.DataObject
) -> None:
    made, strategy = file
    numbers = [field.number for field in made.DESCRIPTOR.fields]
    odd = st.tuples(st.sampled_from([*numbers, 41, 3000]), PAYLOADS)
    values = []
    for _ in range(4):
        # Two messages in one are merged; fields of other types are unknown ones.
        parts = [
            fill(made(), one).SerializeToString()
            for one in data.draw(st.lists(strategy, min_size=1, max_size=2))
        ]
        parts += [field_bytes(one, *two) for one, two in data.draw(st.lists(odd, max_size=2))]
        value = b"".join(data.draw(st.permutations(parts)))
        cut = data.draw(st.integers(0, 3))
        values.append(value[: len(value) - cut])
    topic = send(shared, values)
    names = [field.name for field in made.DESCRIPTOR.fields]
    scan = shared.scan(
        topic, value=ottla.protobuf(made), columns=[*names, "error"], on_error="column"
    )
    table = scan.to_pyarrow()
    errors = table["error"].to_pylist()
    for value, row, error in zip(values, rows_of(table, names), errors, strict=True):
        try:
            expected = shown(made.FromString(value))
        except (DecodeError, UnicodeDecodeError):
            assert error is not None, value
            assert set(row.values()) == {None}
            continue
        if error is not None:
            # Python's numbers of times have no end, and its package takes them.
            assert "not a whole 64-bit number" in error, (value, error)
            continue
        assert repr(_sorted(row)) == repr(_sorted(expected)), value
