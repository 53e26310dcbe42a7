"""Batches as dataframes, numpy arrays, text and HTML.

The native classes call these functions; the libraries are imported only when asked for.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from ottla._kafka_columns import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from ottla._ottla import Column, RecordBatch

#: How many rows of a batch and how many characters of a value are shown.
SHOWN_ROWS = 10
SHOWN_CHARACTERS = 60


def require(library: str, purpose: str) -> Any:
    """Import an optional library, or raise an error that says how to install it."""
    import importlib

    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        package = library.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{purpose} needs {package}: pip install {package}", name=package
        ) from None


class Frame:
    """What holds its rows as a polars dataframe, as other libraries want them."""

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a ``polars.DataFrame``."""
        raise NotImplementedError

    def to_pyarrow(self) -> pa.Table:
        """Return the rows as a ``pyarrow.Table``."""
        require("pyarrow", "to_pyarrow()")
        polars = require("polars", "to_pyarrow()")
        return self.to_polars().to_arrow(compat_level=polars.CompatLevel.oldest())

    def to_pandas(self, **options: Any) -> pd.DataFrame:
        """Return the rows as a ``pandas.DataFrame``.

        Parameters
        ----------
        **options
            The keyword arguments of ``pyarrow.Table.to_pandas``.
        """
        require("pandas", "to_pandas()")
        return self.to_pyarrow().to_pandas(**options)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return the rows as dictionaries."""
        rows: Iterator[dict[str, Any]] = self.to_polars().iter_rows(named=True)
        return rows

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            f"a {type(self).__name__.lower()} is not an array: to_pandas() returns a "
            "pandas.DataFrame"
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        stream: object = self.to_polars().__arrow_c_stream__(requested_schema)
        return stream


def pickled_batch(stream: bytes, facts: Any) -> RecordBatch:
    """Make a batch again that was pickled."""
    from ottla._ottla import RecordBatch

    return RecordBatch._of_pickle(stream, facts)  # noqa: SLF001


# --- conversions ---------------------------------------------------------------------------------


def pyarrow_batch(batch: RecordBatch, string_view: bool) -> pa.RecordBatch:
    """Convert a batch into a ``pyarrow.RecordBatch``."""
    pyarrow = require("pyarrow", "to_pyarrow()")
    return pyarrow.record_batch(batch if string_view else batch.plain())


def pyarrow_column(column: Column, string_view: bool) -> pa.Array:
    """Convert a column into a ``pyarrow.Array``."""
    pyarrow = require("pyarrow", "to_pyarrow()")
    return pyarrow.array(column if string_view else column.plain())


def pandas_frame(source: Any, **options: Any) -> pd.DataFrame:
    """Convert anything with a C stream into a ``pandas.DataFrame``."""
    require("pandas", "to_pandas()")
    pyarrow = require("pyarrow", "to_pandas()")
    return pyarrow.table(source).to_pandas(**options)


def polars_frame(source: Any) -> pl.DataFrame:
    """Convert anything with a C stream into a ``polars.DataFrame``."""
    polars = require("polars", "to_polars()")
    return polars.DataFrame(source)


def numpy_column(column: Column) -> np.ndarray[Any, Any]:
    """Convert a column into a ``numpy.ndarray``: a view of its memory where numpy has the type."""
    numpy = require("numpy", "to_numpy()")
    memory = column._memory()  # noqa: SLF001
    if memory is not None:
        return numpy.asarray(memory)
    values = numpy.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def numpy_columns(batch: RecordBatch) -> dict[str, np.ndarray[Any, Any]]:
    """Convert a batch into a dictionary of ``numpy.ndarray``."""
    return {name: numpy_column(batch[name]) for name in batch.column_names}


def numpy_protocol(column: Column, dtype: Any, copy: bool | None) -> np.ndarray[Any, Any]:
    """Implement ``numpy.asarray(column)``."""
    numpy = require("numpy", "numpy.asarray()")
    array = numpy_column(column)
    if dtype is not None and array.dtype != dtype:
        if copy is False:
            raise ValueError(f"converting {column.type} to {dtype} needs a copy")
        return array.astype(dtype)
    return numpy.array(array) if copy else array


# --- pictures ------------------------------------------------------------------------------------


def _short(value: object) -> str:
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = repr(value)
    elif value is None:
        text = "null"
    elif hasattr(value, "isoformat"):
        text = value.isoformat(sep=" ") if hasattr(value, "hour") else value.isoformat()
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def text_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a table for a terminal."""
    cells = [[str(name) for name in names], *([_short(value) for value in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def html_table(
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    most: int | None = None,
) -> str:
    """Lay out a table for a notebook; of more rows than ``most`` it says how many there are."""
    left = 0 if most is None else len(rows) - most
    if left > 0:
        rows = [*rows[:most], [f"… {left:,} more", *[""] * (len(names) - 1)]]
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_short(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    title = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def size(count: int) -> str:
    """Format a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _first_rows(batch: RecordBatch, names: Sequence[str]) -> list[list[object]]:
    return [[row[name] for name in names] for row in batch.head(SHOWN_ROWS).to_pylist()]


def _summary(batch: RecordBatch) -> str:
    spans = ", ".join(
        f"{topic}-{partition}[{start}, {end})"
        for topic, partitions in batch._spans().items()  # noqa: SLF001
        for partition, (start, end) in sorted(partitions.items())
    )
    shape = f"{batch.num_rows:,} rows, {batch.num_columns} columns, {size(batch.nbytes)}"
    return f"RecordBatch: {shape}" + (f", {spans}" if spans else "")


def batch_text(batch: RecordBatch) -> str:
    """Show a batch on a terminal."""
    lines = [_summary(batch)]
    if batch.num_columns:
        lines.append(text_table(batch.column_names, _first_rows(batch, batch.column_names)))
    if batch.num_rows > SHOWN_ROWS:
        lines.append(f"… {batch.num_rows - SHOWN_ROWS:,} more rows")
    return "\n".join(lines)


def batch_html(batch: RecordBatch) -> str:
    """Show a batch in a notebook: first what the values have, which is what a user looks for."""
    schema = batch.schema
    names = sorted(schema, key=set(schema).difference(fields_of(schema)).__contains__)
    titles = [f"{name}: {schema[name]}" for name in names]
    return html_table(titles, _first_rows(batch, names), _summary(batch))


def column_text(column: Column) -> str:
    """Show a column on a terminal."""
    shown = ", ".join(_short(column[row]) for row in range(min(len(column), SHOWN_ROWS)))
    more = ", …" if len(column) > SHOWN_ROWS else ""
    return f"Column {column.name!r}: {column.type}, {len(column):,} values [{shown}{more}]"


def items_table(items: Mapping[str, object]) -> list[list[object]]:
    """Convert a mapping into rows of two columns."""
    return [[name, value] for name, value in items.items()]
