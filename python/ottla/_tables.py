"""Tables to be written: which parts of a dataframe are columns.

pandas has an index in addition to its columns. One rule applies to it: a level with a name is a
column of that name; an index of integers without a name only numbers the rows and is left out; any
other index without a name is refused, since it would be lost.
"""

from __future__ import annotations

import sys
from typing import Any

from ottla.errors import ConfigError

__all__ = ["rows_of", "writable"]


def writable(data: Any) -> Any:
    """Return a table whose columns are everything in it.

    Parameters
    ----------
    data : object
        What a user wants to write; anything but a pandas dataframe is returned unchanged.

    Raises
    ------
    ConfigError
        When an index has no name, or the name of a column.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(data, pandas.DataFrame):
        return data
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
