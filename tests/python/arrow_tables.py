"""Tables of every Arrow type for property tests, and their comparison."""

from __future__ import annotations

import itertools
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

BITS = (8, 16, 32, 64)
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def numbers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    """All integers of a size, extremes among them."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high) | st.sampled_from([low, high, 0])


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """All decimals of a type."""
    most = 10**precision - 1
    context = Context(prec=80)
    unscaled = st.integers(-most, most) | st.sampled_from([-most, most, 0])
    return unscaled.map(lambda one: Decimal(one).scaleb(-scale, context))


def of_numbers(kind: pa.DataType, bits: int = 64) -> tuple[pa.DataType, Any]:
    """A type whose values are made from those of integers."""
    return kind, numbers(bits, True)


SIMPLE: list[tuple[pa.DataType, Any]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *((getattr(pa, f"int{bits}")(), numbers(bits, True)) for bits in BITS),
    *((getattr(pa, f"uint{bits}")(), numbers(bits, False)) for bits in BITS),
    (pa.float16(), st.floats(width=16, allow_nan=False, allow_infinity=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pa.decimal32(9, 2), decimals(9, 2)),
    (pa.decimal64(18, 18), decimals(18, 18)),
    (pa.decimal128(38, 10), decimals(38, 10)),
    (pa.decimal256(76, 0), decimals(76, 0)),
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), st.binary(max_size=20)),
    (pa.large_binary(), st.binary(max_size=20)),
    (pa.binary_view(), st.binary(max_size=20)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    of_numbers(pa.date32(), 32),
    (pa.date64(), st.integers(-(10**8), 10**8).map(lambda days: days * 86_400_000)),
    *(of_numbers(pa.timestamp(unit)) for unit in UNITS),
    of_numbers(pa.timestamp("us", "Europe/Prague")),
    *(
        (
            getattr(pa, f"time{32 if unit in {'s', 'ms'} else 64}")(unit),
            st.integers(0, 86_400 * rate - 1),
        )
        for unit, rate in UNITS.items()
    ),
    *(of_numbers(pa.duration(unit)) for unit in UNITS),
    (pa.dictionary(pa.int8(), pa.string()), TEXT),
    (pa.dictionary(pa.int32(), pa.int64()), numbers(64, True)),
]


def array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """An array of values, times by their numbers."""
    if pa.types.is_temporal(kind):
        bits = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, bits).view(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(values, pa.float32()).cast(kind)
    return pa.array(values, kind)


def column_of(kind: pa.DataType, values: Any, rows: int) -> st.SearchStrategy[pa.Array]:
    """Columns of a type, nulls among them."""
    lists = st.lists(st.none() | values, min_size=rows, max_size=rows)
    return lists.map(lambda made: array(kind, made))


def nested(
    inner: pa.DataType, values: Any, rows: int, names: tuple[str, str]
) -> st.SearchStrategy[pa.Array]:
    """Lists, maps and structs of a type."""

    @st.composite
    def build(draw: st.DrawFn) -> pa.Array:
        shape = draw(st.sampled_from(["list", "large_list", "fixed", "struct", "map"]))
        sizes = draw(st.lists(st.none() | st.integers(0, 3), min_size=rows, max_size=rows))
        if shape == "fixed":
            sizes = [2] * rows
        total = rows if shape == "struct" else sum(size or 0 for size in sizes)
        items = draw(column_of(inner, values, total))
        mask = pa.array([size is None for size in sizes], pa.bool_())
        ends = [0, *itertools.accumulate(size or 0 for size in sizes)]
        if shape == "struct":
            one = pa.StructArray.from_arrays([items, items], names=[*names], mask=mask)
        elif shape == "fixed":
            one = pa.FixedSizeListArray.from_arrays(items, 2)
        elif shape == "map":
            keys = pa.array([f"k{number}" for number in range(total)], pa.string())
            kind = pa.map_(pa.string(), inner)
            one = pa.MapArray.from_arrays(pa.array(ends, pa.int32()), keys, items, type=kind)
        else:
            large = shape == "large_list"
            made = (pa.LargeListArray if large else pa.ListArray).from_arrays
            one = made(pa.array(ends, pa.int64() if large else pa.int32()), items, mask=mask)
        return one

    return build()


@st.composite
def tables(
    draw: st.DrawFn,
    simple: list[tuple[pa.DataType, Any]] = SIMPLE,
    names: tuple[str, str] = ("x", 'y "z"'),
    columns_max: int = 5,
) -> pa.Table:
    """Tables of some columns, in chunks."""
    rows = draw(st.integers(0, 8))
    kinds = draw(st.lists(st.sampled_from(simple), min_size=1, max_size=columns_max))
    columns = []
    for kind, values in kinds:
        deep = draw(st.booleans())
        made = nested(kind, values, rows, names) if deep else column_of(kind, values, rows)
        columns.append(draw(made))
    table = pa.table({f"c{number}": one for number, one in enumerate(columns)})
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table[:cut], table[cut:]])


def same(found: pa.Table, expected: pa.Table) -> None:
    """Compare tables; dictionaries by their values, for their order is not kept."""
    assert found.num_rows == expected.num_rows
    for name in expected.column_names:
        one, other = found[name], expected[name]
        assert one.type == other.type, name
        if pa.types.is_dictionary(other.type):
            one, other = one.cast(other.type.value_type), other.cast(other.type.value_type)
        plain = [chunked.combine_chunks() for chunked in (one, other)]
        shown = [_numbers(part).to_pylist() for part in plain]
        assert shown[0] == shown[1], (name, other.type)


def _numbers(one: Any) -> Any:
    """Times as numbers, since Python has no object for all of them; also inside of others."""
    kind = one.type
    if pa.types.is_temporal(kind):
        return one.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if pa.types.is_dictionary(kind):
        return one.cast(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [_numbers(part) for part in one.flatten()]
        names = [f"f{number}" for number in range(len(fields))]
        return pa.StructArray.from_arrays(fields, names=names, mask=one.is_null())
    if pa.types.is_map(kind):
        ends = [0, *itertools.accumulate(len(row.as_py() or []) for row in _lengths(one))]
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _numbers(_items(one)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        ends = [0, *itertools.accumulate(_sizes(one))]
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), _numbers(one.flatten()), mask=one.is_null()
        )
    return one


def _sizes(one: Any) -> list[int]:
    return [size or 0 for size in pc.list_value_length(one).to_pylist()]


def _lengths(one: Any) -> Any:
    keys = pa.ListArray.from_arrays(one.offsets, one.keys)
    return list(keys)


def _items(one: Any) -> Any:
    first, last = one.offsets[0].as_py(), one.offsets[len(one)].as_py()
    return one.items[first:last]


def values_of(one: Any, kind: pa.DataType) -> list[Any]:  # noqa: C901
    """Return the values of an array as those of a type that holds them; times as numbers."""
    if pa.types.is_dictionary(one.type):
        known = one.dictionary
        if pa.types.is_string_view(known.type):
            known = known.cast(pa.string())
        one = known.take(one.indices)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(one, pa.ExtensionArray):
        one = one.storage
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    valid = one.is_valid().to_pylist()
    if pa.types.is_struct(kind):
        parts = {
            kind.field(at).name: values_of(part, kind.field(at).type)
            for at, part in enumerate(one.flatten())
        }
        rows = [{name: part[at] for name, part in parts.items()} for at in range(len(one))]
        return [row if there else None for row, there in zip(rows, valid, strict=True)]
    if pa.types.is_map(kind):
        sizes = [len(row.as_py() or []) for row in _lengths(one)]
        first, last = one.offsets[0].as_py(), one.offsets[len(one)].as_py()
        keys = values_of(one.keys[first:last], kind.key_type)
        pairs = list(zip(keys, values_of(_items(one), kind.item_type), strict=True))
        return _cut(pairs, sizes, valid)
    if hasattr(kind, "value_type"):
        return _cut(values_of(one.flatten(), kind.value_type), _sizes(one), valid)
    if pa.types.is_float16(kind):
        return one.cast(pa.float32()).to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_interval(kind):
        return one.to_pylist()  # type: ignore[no-any-return]
    return _numbers(one.cast(kind)).to_pylist()  # type: ignore[no-any-return]


def _cut(items: list[Any], sizes: list[int], valid: list[bool]) -> list[Any]:
    ends = [0, *itertools.accumulate(sizes)]
    lists = [items[start:end] for start, end in itertools.pairwise(ends)]
    return [one if there else None for one, there in zip(lists, valid, strict=True)]
