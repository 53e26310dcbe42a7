"""The types of columns, converted from what Python users pass.

A schema becomes a mapping of column names to what the extension reads: names of types, Arrow types,
or, for structs, such mappings; or it is an object that exports a whole Arrow schema.
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import types
import typing
import uuid
from collections.abc import Mapping
from typing import Any

from ottla.errors import ConfigError

__all__ = ["columns"]

_PYTHON: dict[object, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "utf8",
    bytes: "binary",
    dt.datetime: "timestamp[us, UTC]",
    dt.date: "date32",
    dt.time: "time64[us]",
    dt.timedelta: "duration[us]",
    uuid.UUID: "uuid",
    type(None): "null",
}

#: The names in numpy and pandas of types that have a different name in Arrow.
_PANDAS = {"string": "utf8", "str": "utf8", "boolean": "bool", "category": "dictionary<utf8>"}
_PANDAS_TIME = re.compile(r"(datetime|timedelta)64\[(s|ms|us|ns)(?:, (.+))?\]")


def columns(schema: Any) -> Any:
    """Return a schema as the extension reads it.

    Parameters
    ----------
    schema : mapping, Series of dtypes, dataframe or object with an Arrow schema
        What a user passed.
    """
    if isinstance(schema, str) or schema is None:
        raise ConfigError(f"schema={schema!r}: pass a mapping of names to types")
    module = type(schema).__module__.partition(".")[0]
    if module == "polars" and isinstance(schema, Mapping):
        return _polars(schema)
    if module == "pandas" and hasattr(schema, "dtypes"):
        # A dataframe, or the dtypes of one.
        dtypes = schema if schema.ndim == 1 else schema.dtypes
        return {name: _type(f"column {name!r}", dtype) for name, dtype in dtypes.items()}
    if isinstance(schema, Mapping):
        if any(type(one).__module__.startswith("polars") for one in schema.values()):
            return _polars(schema)
        return {_name(name): _type(f"column {name!r}", one) for name, one in schema.items()}
    if hasattr(schema, "__arrow_c_schema__") or hasattr(schema, "__arrow_c_stream__"):
        return schema
    raise ConfigError(
        f"schema= is {type(schema).__qualname__}: pass a mapping of names to types, a schema of "
        "pyarrow or polars, or the dtypes of pandas"
    )


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"the column {name!r} of the schema: names must be str")
    return name


def _polars(schema: Mapping[str, Any]) -> Any:
    """Let polars convert its types into Arrow's, through a frame without rows."""
    import polars as pl

    def is_theirs(one: object) -> bool:
        return isinstance(one, (pl.DataType, type)) and (
            isinstance(one, pl.DataType) or issubclass(one, pl.DataType)
        )

    if all(is_theirs(one) for one in schema.values()):
        return pl.DataFrame(schema=dict(schema))
    return {
        _name(name): _PolarsType(one) if is_theirs(one) else _type(f"column {name!r}", one)
        for name, one in schema.items()
    }


class _PolarsType:
    """A single polars type that exports itself as an Arrow type."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype

    def __arrow_c_schema__(self) -> Any:
        import polars as pl

        return pl.Series(dtype=self._dtype).to_arrow().type.__arrow_c_schema__()

    def __repr__(self) -> str:
        return repr(self._dtype)


def _type(what: str, one: Any) -> Any:
    """Return a type as the extension reads it; errors say that ``what`` has it."""
    if isinstance(one, str) or hasattr(one, "__arrow_c_schema__"):
        return one
    if isinstance(one, Mapping):
        return {_name(name): _type(f"{what}.{name}", inner) for name, inner in one.items()}
    if isinstance(one, type) and one in _PYTHON:
        return _PYTHON[one]
    if one is decimal.Decimal:
        raise ConfigError(f"{what}: a Decimal needs its number of digits: 'decimal128[38, 9]'")
    if type(one).__module__.partition(".")[0] in {"numpy", "pandas"} or _is_numpy(one):
        return _numpy(what, one)
    return _generic(what, one)


def _is_numpy(one: Any) -> bool:
    return isinstance(one, type) and one.__module__ == "numpy"


def _numpy(what: str, dtype: Any) -> Any:
    arrow = getattr(dtype, "pyarrow_dtype", None)
    if arrow is not None:
        return arrow
    name = dtype.__name__ if isinstance(dtype, type) else str(dtype)
    time = _PANDAS_TIME.fullmatch(name)
    if time is not None:
        kind, unit, zone = time.groups()
        if kind == "timedelta":
            return f"duration[{unit}]"
        return f"timestamp[{unit}, {zone}]" if zone else f"timestamp[{unit}]"
    if name == "object":
        raise ConfigError(
            f"{what}: dtype object does not say what the values are: name the type, such as 'utf8'"
        )
    return _PANDAS.get(name, name.lower())


def _generic(what: str, one: Any) -> Any:
    """Return the type of ``list[int]``, ``dict[str, float]`` or ``int | None``."""
    origin, arguments = typing.get_origin(one), typing.get_args(one)
    if origin in {typing.Union, types.UnionType}:
        kinds = [kind for kind in arguments if kind is not type(None)]
        if len(kinds) == 1:
            return _type(what, kinds[0])
    inner = [_type(what, kind) for kind in arguments if kind is not Ellipsis]
    if all(isinstance(kind, str) for kind in inner):
        if origin is list and len(inner) == 1:
            return f"list<{inner[0]}>"
        if origin is dict and len(inner) == 2:  # noqa: PLR2004
            return f"map<{inner[0]}, {inner[1]}>"
    raise ConfigError(
        f"{what}: {one!r} is not a type: use a name such as 'int64' or 'utf8', a Python type such "
        "as int or list[str], an Arrow type, or a mapping of names to types"
    )
