"""Tables to be written: which parts of a dataframe are columns, and which have no Arrow type.

Columns of Python objects, of pandas or polars or of rows that are mappings, get a type that keeps
every value, or are refused.
pandas has an index in addition to its columns. One rule applies to it: a level with a name is a
column of that name; an index of integers without a name only numbers the rows and is left out; any
other index without a name is refused, since it would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ottla._imported import imported
from ottla._objects import array_of
from ottla._values import Column, Values
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Source", "rows_of", "writable"]


class Source:
    """A table to be written, and the error of the program that makes its rows.

    Arrow's streams hand on the text of an error, not the error itself.
    """

    def __init__(self, data: Any) -> None:
        self.rows = writable(_of_mappings(data) if isinstance(data, (list, tuple)) else data)
        #: What a generator of batches raised.
        self.raised: BaseException | None = None
        arrow = imported("pyarrow")
        if arrow is not None and isinstance(self.rows, arrow.RecordBatchReader):
            reader = self.rows
            self.rows = arrow.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from reader
        except GeneratorExit:
            raise
        except BaseException as error:
            self.raised = error
            raise


def _of_mappings(rows: Sequence[Any]) -> Any:
    """Return a table of rows that are mappings; a name that a row lacks is null in it."""
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(
            "rows as a list of mappings are written with the help of pyarrow: install it, or pass "
            "a dataframe"
        ) from None
    names: dict[str, None] = {}
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"row {at} is not a mapping of names to values but {type(row).__name__}: pass a "
                "list of dictionaries, a dataframe, or anything with __arrow_c_stream__"
            )
        names |= dict.fromkeys(row)
    columns = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a column must be a str, not {name!r}")
        words = Column(
            f"{name!r} of the rows",
            f"Convert it, for example with str(row[{name!r}]), or leave it out",
            f"row[{name!r}]",
        )
        values = [row.get(name) for row in rows]
        columns.append(array_of(Values(words, values, range(len(values)))))
    return pa.table(columns, names=list(names))


def writable(data: Any) -> Any:
    """Return a table whose columns are everything in it.

    Parameters
    ----------
    data : object
        What a user wants to write; anything but a dataframe of pandas or polars is returned
        unchanged.

    Raises
    ------
    ConfigError
        When an index has no name, or the name of a column, or a column has no Arrow type that keeps
        what it is.
    """
    polars = imported("polars")
    if polars is not None and isinstance(data, polars.DataFrame):
        return _of_polars(data, polars)
    arrow = imported("pyarrow")
    if arrow is not None and isinstance(
        data, (arrow.Table, arrow.RecordBatch, arrow.RecordBatchReader)
    ):
        _refuse_categories(data, arrow)
        return data
    pandas = imported("pandas")
    if pandas is None or not isinstance(data, pandas.DataFrame):
        return data
    for name, dtype in zip(data.columns, data.dtypes, strict=True):
        _refuse_lossy(name, dtype, pandas)
    for level in range(data.index.nlevels):
        name = data.index.names[level]
        if name is not None:
            _refuse_lossy(name, data.index.get_level_values(level).dtype, pandas)
    return _of_objects(_with_index(data, pandas), pandas)


def _with_index(data: Any, pandas: Any) -> Any:
    """Return a dataframe of pandas whose columns are everything in it."""
    index = data.index
    levels = range(index.nlevels)
    if all(index.names[level] is not None for level in levels):
        return _with_levels(data, pandas)
    if index.nlevels == 1 and (len(index) == 0 or pandas.api.types.is_integer_dtype(index.dtype)):
        # They number the rows, even after a filter.
        return data if type(index) is pandas.RangeIndex else data.reset_index(drop=True)
    nameless = [level for level in levels if index.names[level] is None]
    kind = f"level {nameless[0]} of the index" if index.nlevels > 1 else f"the {index.dtype} index"
    raise ConfigError(
        f"{kind} has no name, so it would not become a column: name it, for example with "
        f"df.rename_axis({_suggested(index)!r}), or leave it out with df.reset_index(drop=True)"
    )


def _of_objects(data: Any, pandas: Any) -> Any:
    """Convert a dataframe that has columns of objects, each to one type that keeps its values."""
    places = [at for at, dtype in enumerate(data.dtypes) if _has_objects(dtype, pandas)]
    if not places:
        return data
    try:
        import pyarrow as pa
    except ImportError:
        # pandas says that it is needed.
        return data
    # The names as pyarrow makes texts of them.
    empty = pandas.DataFrame(columns=data.columns)
    names = pa.Table.from_pandas(empty, preserve_index=False).column_names
    others = [at for at in range(len(names)) if at not in places]
    rest = pa.Table.from_pandas(data.iloc[:, others], preserve_index=False)
    columns, fields = [], []
    for at, name in enumerate(names):
        if at in places:
            column = _array_of_objects(data.columns[at], data.iloc[:, at], pandas)
            field = pa.field(name, column.type)
        else:
            field = rest.schema.field(others.index(at))
            column = rest.column(others.index(at))
        columns.append(column)
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _has_objects(dtype: Any, pandas: Any) -> bool:
    if isinstance(dtype, pandas.CategoricalDtype):
        dtype = dtype.categories.dtype
    return bool(dtype == "object")


def _array_of_objects(name: Any, column: Any, pandas: Any) -> Any:
    """Return the Arrow array of a column of objects, or of categories that are objects."""
    import pyarrow as pa

    shown = f"df[{name!r}]"
    is_category = isinstance(column.dtype, pandas.CategoricalDtype)
    kind = "object" if not is_category else "categories of objects"
    words = Column(
        f"column {str(name)!r} is {kind} in pandas",
        f"Convert it, for example with {shown}.astype(str), or leave it out with "
        f"df.drop(columns={name!r})",
        shown,
    )
    if is_category:
        try:
            known = array_of(_values_of(words, column.cat.categories))
        except ConfigError:
            # The rows say more than the categories do.
            array_of(_values_of(words, column.astype(object)))
            raise
        codes = column.cat.codes.to_numpy()
        indices = pa.array(codes, mask=codes < 0)
        return pa.DictionaryArray.from_arrays(indices, known, ordered=column.cat.ordered)
    return array_of(_values_of(words, column))


def _values_of(words: Column, column: Any) -> Values:
    """Return the objects of a column. A NaN is how pandas marks what is missing."""
    values = column.tolist()
    numpy = imported("numpy")
    floats = tuple(
        one for one in set(map(type, values)) if issubclass(one, (float, numpy.floating))
    )
    if floats:
        values = [None if isinstance(one, floats) and numpy.isnan(one) else one for one in values]
    return Values(words, values, range(len(values)))


def _refuse_lossy(name: Any, dtype: Any, pandas: Any) -> None:
    """Refuse what pandas would hand out as something less, or not at all."""
    if isinstance(dtype, pandas.CategoricalDtype):
        dtype = dtype.categories.dtype
    if isinstance(dtype, pandas.PeriodDtype):
        detail = (
            "which would be written as bare integers: convert it with .dt.to_timestamp() or "
            ".astype(str)"
        )
    elif isinstance(dtype, pandas.IntervalDtype):
        detail = (
            "which would be written without saying which of the bounds belong to it: convert it "
            "with .astype(str), or write .array.left and .array.right as columns"
        )
    elif isinstance(dtype, pandas.SparseDtype):
        detail = "and Arrow has no sparse columns: convert it with .sparse.to_dense()"
    elif getattr(dtype, "kind", "") == "c":
        detail = "and Arrow has no complex numbers: write .real and .imag as columns"
    else:
        return
    raise ConfigError(f"column {str(name)!r} is {dtype}, {detail}")


#: Extension types of pandas whose storage means nothing without them.
_EXTENSIONS_OF_PANDAS = {
    "pandas.period": "periods",
    "pandas.interval": "intervals",
}


def _refuse_categories(data: Any, arrow: Any) -> None:
    """Refuse dictionaries of extension types: passed on to the engine, they are their storage."""
    for field in data.schema:
        if arrow.types.is_dictionary(field.type):
            kind = getattr(field.type.value_type, "extension_name", "")
            what = _EXTENSIONS_OF_PANDAS.get(kind)
            if what is not None:
                raise ConfigError(
                    f"column {field.name!r} has categories of pandas, {what}, which would be "
                    "written as something less: convert it with .astype(str)"
                )


#: What Arrow has no type for, by the name in polars, and the remedy.
_UNKNOWN_TO_ARROW = {
    "Int128": "cast it to pl.Decimal(38, 0), pl.Int64 or pl.String",
    "UInt128": "cast it to pl.Decimal(38, 0), pl.UInt64 or pl.String",
}


def _of_polars(data: Any, polars: Any) -> Any:
    objects: list[str] = []
    for name, dtype in data.schema.items():
        parts = _parts(dtype)
        if dtype == polars.Object:
            objects.append(name)
        elif any(part == polars.Object for part in parts):
            raise ConfigError(
                f"column {name!r} is {dtype} in polars, with Python objects that have no Arrow "
                f"type: leave it out with df.drop({name!r})"
            )
        for part in parts:
            remedy = _UNKNOWN_TO_ARROW.get(type(part).__name__)
            if remedy is not None:
                raise ConfigError(
                    f"column {name!r} is {dtype} in polars, which Arrow does not have: {remedy}"
                )
    return _with_objects(data, objects) if objects else data


def _parts(dtype: Any) -> list[Any]:
    """Return a type of polars and all types in it."""
    inner = [] if getattr(dtype, "inner", None) is None else [dtype.inner]
    inner += [field.dtype for field in getattr(dtype, "fields", ())]
    return [dtype, *(part for one in inner for part in _parts(one))]


def _with_objects(data: Any, names: list[str]) -> Any:
    """Convert columns of Python objects, each to one type that keeps its values."""
    try:
        import pyarrow as pa
    except ImportError:
        raise ConfigError(
            f"column {names[0]!r} is Object in polars, Python objects, which are written with the "
            f"help of pyarrow: install it, or cast the column, for example with "
            f"pl.Series({names[0]!r}, [str(one) for one in df[{names[0]!r}]])"
        ) from None
    rest = pa.table(data.drop(names))
    columns, fields = [], []
    for name in data.columns:
        if name in names:
            words = Column(
                f"column {name!r} is Object in polars",
                f"To write it as text, cast it, for example with pl.Series({name!r}, [str(one) for "
                f"one in df[{name!r}]]), or leave it out with df.drop({name!r})",
                f"df[{name!r}]",
            )
            values = data[name].to_list()
            column = array_of(Values(words, values, range(len(values))))
            field = pa.field(name, column.type)
        else:
            column, field = rest[name], rest.schema.field(name)
        columns.append(column)
        fields.append(field)
    return pa.table(columns, schema=pa.schema(fields))


def _suggested(index: Any) -> Any:
    if index.nlevels == 1:
        return "time" if hasattr(index, "tz") else "id"
    return [name or f"level_{level}" for level, name in enumerate(index.names)]


def _with_levels(data: Any, pandas: Any) -> Any:
    """Convert the levels of an index to columns, before the others."""
    names = [str(name) for name in data.index.names]
    columns = {str(name) for name in data.columns}
    for place, name in enumerate(names):
        if name in columns or name in names[:place]:
            raise ConfigError(
                f"{name!r} is the name of an index and of a column: rename one, or leave the index "
                "out with df.reset_index(drop=True)"
            )
    # Shares the columns; `reset_index` of pandas 2 copies them.
    table = data.copy(deep=False)
    for level in reversed(range(len(names))):
        table.insert(0, data.index.names[level], data.index.get_level_values(level))
    table.index = pandas.RangeIndex(len(table))
    return table


def rows_of(data: Any) -> int | None:
    """Return the number of rows of a table, when it is known without reading it."""
    for name in ("num_rows", "height"):
        count = getattr(data, name, None)
        if isinstance(count, int):
            return count
    # For a scan this is an upper bound.
    most = getattr(data, "max_rows", None)
    if isinstance(most, int):
        return most
    try:
        return len(data)
    except TypeError:
        return None
