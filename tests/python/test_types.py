"""Every Arrow type through every format: it comes back equal, or is refused, as the manual says.

``src/manual/types.md`` has the table that is tested here.
"""

from __future__ import annotations

import itertools
import math
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ottla
import properties
from arrow_tables import SIMPLE, tables, values_of
from registries import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_topics = itertools.count()
SLOW = settings(properties.SLOW, max_examples=25)


@pytest.fixture(scope="module")
def schemas() -> Iterator[ottla.SchemaRegistry]:
    """A registry for all tests."""
    with Registry() as registry:
        yield ottla.SchemaRegistry(registry.url)


def avro(kind: pa.DataType) -> bool:
    """Whether Avro, with a schema made from the columns, carries a type."""
    return not (kind == pa.uint64() or pa.types.is_duration(kind))


def protobuf(kind: pa.DataType) -> bool:
    """Whether Protobuf, with a schema made from the columns, carries a type."""
    return not (
        pa.types.is_null(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
    )


CARRIES: dict[str, Callable[[pa.DataType], bool]] = {
    "avro": avro,
    "protobuf": protobuf,
    "arrow_ipc": lambda _kind: True,
}

#: Two values of each type, one of them null.
ONES: list[tuple[pa.DataType, Any]] = [
    *((kind, None) for kind, _ in SIMPLE if pa.types.is_null(kind)),
    (pa.bool_(), True),
    *((getattr(pa, f"int{bits}")(), -(2 ** (bits - 1))) for bits in (8, 16, 32, 64)),
    *((getattr(pa, f"uint{bits}")(), 2**bits - 1) for bits in (8, 16, 32, 64)),
    (pa.float16(), 0.5),
    (pa.float32(), 2.0**-140),
    (pa.float64(), float("inf")),
    (pa.decimal32(9, 2), Decimal("-1234567.89")),
    (pa.decimal64(18, 18), Decimal("0.123456789012345678")),
    (pa.decimal128(38, 10), Decimal("1e-10")),
    (pa.decimal256(76, 0), Decimal(10**76 - 1)),
    *((kind, "é") for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *((kind, b"\0\xff") for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.binary(3), b"abc"),
    (pa.date32(), -1),
    (pa.date64(), -86_400_000),
    *((pa.timestamp(unit, zone), -1) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")),
    (pa.timestamp("us", "Europe/Prague"), 1),
    (pa.time32("s"), 86_399),
    (pa.time32("ms"), 1),
    (pa.time64("us"), 1),
    (pa.time64("ns"), 1000),
    *((pa.duration(unit), -1) for unit in ("s", "ms", "us", "ns")),
    (pa.dictionary(pa.int8(), pa.string()), "x"),
    (pa.dictionary(pa.int32(), pa.int64()), 7),
    (pa.list_(pa.int64()), [1, None]),
    (pa.large_list(pa.string()), ["x"]),
    (pa.list_(pa.int32(), 2), [1, 2]),
    (pa.struct({"x": pa.int64(), "y": pa.string()}), {"x": 1, "y": None}),
    (pa.map_(pa.string(), pa.int64()), [("k", 1)]),
]


def one_array(kind: pa.DataType, value: Any, nulls: int) -> pa.Array:
    values = [value, *[None] * nulls]
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(values, pa.float32()).cast(kind)
    return pa.array(values, kind)


def write(
    kafka: ottla.Client, schemas: ottla.SchemaRegistry, name: str, data: Any
) -> tuple[str, ottla.Format]:
    """Write a table to a new topic, and return that and the format."""
    topic = f"types-{next(_topics)}"
    kafka.create_topic(topic)
    options = {} if name == "arrow_ipc" else {"registry": schemas}
    value = getattr(ottla, name)(**options)
    kafka.write(topic, data, value=value)
    return topic, value


def write_and_read(
    kafka: ottla.Client, schemas: ottla.SchemaRegistry, name: str, data: Any, columns: list[str]
) -> Any:
    """Write a table, and return what a scan makes of it."""
    topic, value = write(kafka, schemas, name, data)
    return kafka.scan(topic, value=value, columns=columns).to_pyarrow()


@pytest.mark.parametrize("name", CARRIES)
@pytest.mark.parametrize(("kind", "value"), ONES, ids=lambda one: str(one)[:40])
def test_each_type_comes_back_or_is_refused_with_its_column(
    shared: ottla.Client,
    schemas: ottla.SchemaRegistry,
    name: str,
    kind: pa.DataType,
    value: Any,
) -> None:
    # Protobuf has no lists or maps that are null.
    never_null = pa.types.is_nested(kind) and not pa.types.is_struct(kind)
    array = one_array(kind, value, 0 if name == "protobuf" and never_null else 1)
    if name == "protobuf" and pa.types.is_list(kind):
        array = pa.array([[1, 2]], kind)
    table = pa.table({"c": array})
    if not CARRIES[name](kind):
        with pytest.raises(ottla.ConfigError, match='column "c"'):
            write_and_read(shared, schemas, name, table, ["c"])
        return
    found = write_and_read(shared, schemas, name, table, ["c"])["c"].combine_chunks()
    assert values_of(found, kind) == values_of(array, kind)


def of_pandas(frame: Any) -> pa.Table:
    """Return the table that a frame of pandas is; pandas has nulls in lists of numbers as NaN."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for at, name in enumerate(table.column_names):
        kind = table.schema.types[at]
        if pa.types.is_nested(kind) and any(one in str(kind) for one in ("double", "float")):
            column = pa.array(frame[name].tolist(), from_pandas=False)
            table = table.set_column(at, name, column)
    return table


def told_apart(value: Any) -> Any:
    """Return a value in which NaN is equal to NaN."""
    if isinstance(value, dict):
        return {name: told_apart(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [told_apart(one) for one in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def made(library: str, table: pa.Table) -> tuple[Any, pa.Table]:
    """Return a frame of a library, and the table that it exports."""
    if library == "polars":
        frame = pl.DataFrame(table)
        return frame, pa.table(frame)
    if library == "duckdb":
        relation = duckdb.from_arrow(table)
        return relation, relation.to_arrow_table()
    if library == "pandas":
        pandas = table.to_pandas()
        return pandas, of_pandas(pandas)
    return table, table


def tables_of(name: str, library: str) -> Any:
    """Tables of what a format carries and a library has."""
    # Inside of others, these end the process when polars exports them.
    polars = [pa.decimal32(9, 2), pa.decimal64(18, 18)]
    missing = {
        "polars": [*polars, pa.decimal256(76, 0)],
        "duckdb": [pa.decimal256(76, 0), pa.float16()],
    }
    simple = [
        (kind, values)
        for kind, values in SIMPLE
        if CARRIES[name](kind) and kind not in missing.get(library, [])
    ]
    return tables(simple, ("x", "y"), 3)


def check(
    shared: ottla.Client, schemas: ottla.SchemaRegistry, name: str, library: str, table: pa.Table
) -> None:
    """Write a table of a library: all its values come back, or it is refused."""
    try:
        data, expected = made(library, table)
    except Exception:
        # What a library has no type or no room for is not written from it.
        if library == "pyarrow":
            raise
        return
    if expected.num_rows == 0:
        # Nothing is written that could tell a schema.
        topic = f"types-{next(_topics)}"
        shared.create_topic(topic)
        assert shared.write(topic, data, value=ottla.arrow_ipc()) == 0
        return
    try:
        topic, value = write(shared, schemas, name, data)
    except ottla.ConfigError as error:
        if 'column "c' not in str(error) and "column 'c" not in str(error):
            raise
        return
    try:
        found = shared.scan(topic, value=value, columns=expected.column_names).to_pyarrow()
    except ottla.DecodeError as error:
        # Times that 64-bit nanoseconds do not reach.
        if name != "protobuf" or "not a whole 64-bit number" not in str(error):
            raise
        return
    for column in expected.column_names:
        one, other = found[column].combine_chunks(), expected[column].combine_chunks()
        both = [told_apart(values_of(part, other.type)) for part in (one, other)]
        assert both[0] == both[1], (column, other.type)


@pytest.mark.parametrize("name", CARRIES)
@pytest.mark.parametrize("library", ["pyarrow", "polars", "pandas", "duckdb"])
@SLOW
@given(st.data())
def test_tables_of_every_library_come_back(
    shared: ottla.Client,
    schemas: ottla.SchemaRegistry,
    library: str,
    name: str,
    data: st.DataObject,
) -> None:
    check(shared, schemas, name, library, data.draw(tables_of(name, library)))


# --- UUIDs and other extension types -------------------------------------------------------------

IDS = [uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), None, uuid.UUID(int=0)]
TEXTS = [one and str(one) for one in IDS]
BYTES = [one and one.bytes for one in IDS]
UUIDS = pa.array(IDS, pa.uuid())
#: The same in a struct, and in lists.
STRUCTS = pa.StructArray.from_arrays([UUIDS], names=["id"])
LISTS = pa.ListArray.from_arrays(pa.array([0, 3, None, 3], pa.int32()), UUIDS)
STRING = '["null", {"type": "string", "logicalType": "uuid"}]'
AVRO = '{{"type": "record", "name": "R", "fields": [{{"name": "id", "type": {}}}]}}'
FIXED = '["null", {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}]'
PROTO = 'syntax = "proto3"; message R {{ optional {} id = 1; }}'
#: What the columns show of UUIDs that were written with a schema.
SHOWN: dict[str, tuple[Any, list[Any]]] = {
    "json": (ottla.json, TEXTS),
    "avro of text": (lambda: ottla.avro(AVRO.format(STRING)), TEXTS),
    "avro of fixed": (lambda: ottla.avro(AVRO.format(FIXED)), BYTES),
    "avro of bytes": (lambda: ottla.avro(AVRO.format('["null", "bytes"]')), BYTES),
    "protobuf of text": (lambda: ottla.protobuf(PROTO.format("string")), TEXTS),
    "protobuf of bytes": (lambda: ottla.protobuf(PROTO.format("bytes")), BYTES),
}


@pytest.mark.parametrize("case", SHOWN)
def test_write_and_send_make_the_same_of_uuids(shared: ottla.Client, case: str) -> None:
    value, wanted = SHOWN[case][0](), SHOWN[case][1]
    topic = f"types-{next(_topics)}"
    shared.create_topic(topic)
    shared.write(topic, pa.table({"id": UUIDS}), value=value)
    for one in IDS:
        shared.send(topic, {"id": one}, value_format=value)
    found = shared.scan(topic, value=value, columns=["id"]).head(10)["id"].to_pylist()
    assert found == wanted * 2


def test_uuids_inside_of_lists_are_text_too(shared: ottla.Client) -> None:
    topic = f"types-{next(_topics)}"
    shared.create_topic(topic)
    shared.write(topic, pa.table({"id": LISTS}))
    shared.send(topic, {"id": IDS})
    found = shared.scan(topic, value={"id": list[str]}, columns=["id"]).head()["id"].to_pylist()
    assert found == [TEXTS, [], None, TEXTS]


@pytest.mark.parametrize("name", ["avro", "protobuf"])
def test_uuids_are_text_where_the_schema_is_made_from_the_columns(
    shared: ottla.Client, schemas: ottla.SchemaRegistry, name: str
) -> None:
    table = pa.table({"id": UUIDS, "s": STRUCTS})
    found = write_and_read(shared, schemas, name, table, ["id", "s"]).to_pylist()
    assert found == [{"id": one, "s": {"id": one}} for one in TEXTS]


def test_streams_keep_extension_types(shared: ottla.Client, schemas: ottla.SchemaRegistry) -> None:
    table = pa.table(
        {
            "id": UUIDS,
            "doc": pa.array(['{"a": 1}', None, "[]"], pa.json_()),
            "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())),
            "ids": LISTS,
        }
    )
    found = write_and_read(shared, schemas, "arrow_ipc", table, table.column_names)
    assert found.schema.types == table.schema.types
    assert found.equals(table)


@pytest.mark.parametrize("name", ["avro", "protobuf"])
def test_other_extension_types_are_what_they_are_stored_as(
    shared: ottla.Client, schemas: ottla.SchemaRegistry, name: str
) -> None:
    table = pa.table(
        {
            "doc": pa.array(['{"a": 1}', None], pa.json_()),
            "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
        }
    )
    found = write_and_read(shared, schemas, name, table, ["doc", "flag"]).to_pylist()
    assert found == [{"doc": '{"a": 1}', "flag": 1}, {"doc": None, "flag": None}]
    topic = f"types-{next(_topics)}"
    shared.create_topic(topic)
    shared.write(topic, table)
    scan = shared.scan(topic, value={"doc": str, "flag": "int8"}, columns=["doc", "flag"])
    assert scan.head().to_pylist() == found
