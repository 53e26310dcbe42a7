"""Columns as Spark has them: it has fewer types than Arrow, and not each keeps every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ottla._ottla import RecordBatch

__all__ = ["spark_batches", "spark_schema"]

#: The most digits of a decimal in Spark.
_DIGITS_MAX = 38


def spark_schema(schema: Any) -> Any:
    """Return the Spark schema of an Arrow schema.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns of a scan.

    Raises
    ------
    ConfigError
        When Spark has no type that keeps all values of a column.
    """
    import pyarrow as pa
    from pyspark.sql.pandas.types import from_arrow_schema

    # Spark would trust a column that has no nulls to have none; only the values themselves know.
    return from_arrow_schema(pa.schema([pa.field(one.name, _type(one)) for one in schema]))


def spark_batches(batches: Iterator[RecordBatch], schema: Any) -> Iterator[Any]:
    """Convert batches into those of pyarrow that Spark takes for a schema of its own.

    A value that the type of its column in Spark cannot keep, such as a nanosecond, is an error.
    """
    from pyspark.sql.pandas.types import to_arrow_schema

    target = to_arrow_schema(schema, timezone="UTC")
    for batch in batches:
        yield batch.to_pyarrow().cast(target)


def _type(field: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 (one case for each kind of type)
    """Return the type that Spark reads a column as, in Arrow's words."""
    import pyarrow as pa
    from pyarrow import types

    kind = field.type
    if types.is_dictionary(kind):
        return _type(field.with_type(kind.value_type))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_unsigned_integer(kind):
        wider = {8: pa.int16(), 16: pa.int32(), 32: pa.int64(), 64: pa.decimal128(20, 0)}
        return wider[kind.bit_width]
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_date(kind):
        return pa.date32()
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_decimal(kind) and kind.precision <= _DIGITS_MAX and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_map(kind):
        return pa.map_(_type(kind.key_field), _type(kind.item_field))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_type(kind.value_field))
    if types.is_struct(kind):
        return pa.struct([pa.field(one.name, _type(one)) for one in kind])
    if types.is_boolean(kind) or types.is_signed_integer(kind) or types.is_floating(kind):
        return kind
    if types.is_null(kind):
        return kind
    raise ConfigError(
        f"Spark has no type for the column {field.name!r} of type {kind}: read it as another one, "
        "such as utf8, or leave it out with columns"
    )
