"""How the bytes of a value become columns, and columns become bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ottla.errors import ConfigError

__all__ = ["Format", "json", "raw", "text"]


@dataclass(frozen=True)
class Format:
    """A value format; made by :func:`raw`, :func:`text` or :func:`json`.

    Parameters
    ----------
    kind : {"raw", "text", "json"}
        The name of the format.
    schema : mapping or Arrow schema, optional
        The columns of a JSON object.
    infer : int, default 1000
        How many records are looked at when no schema is given.
    exclude : tuple of str
        Columns that are not written.
    column : str, default "value"
        The column of a raw or text value.
    """

    kind: str
    schema: Any = None
    infer: int = 1000
    exclude: tuple[str, ...] = ()
    column: str = "value"

    def __repr__(self) -> str:
        if self.kind != "json":
            return f"ottla.{self.kind}({self.column!r})"
        details = []
        if self.schema is not None:
            details.append(f"schema={self.schema!r}")
        if self.exclude:
            details.append(f"exclude={list(self.exclude)!r}")
        return f"ottla.{self.kind}({', '.join(details)})"


def raw(column: str = "value") -> Format:
    """Take values as they are: one column of type binary_view.

    Parameters
    ----------
    column : str, default "value"
        The column of bytes that ``write`` takes; that of a scan is always called ``value``.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``.
    """
    return Format("raw", column=column)


def text(column: str = "value") -> Format:
    """Take values as UTF-8: one column of type string_view.

    Parameters
    ----------
    column : str, default "value"
        The column of text that ``write`` takes; that of a scan is always called ``value``.

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``. A value that is not
        UTF-8 is a decode error, which ``on_error`` decides upon.
    """
    return Format("text", column=column)


def json(schema: Any = None, *, infer: int = 1000, exclude: Iterable[str] = ()) -> Format:
    """Take values as JSON objects: one column per member.

    Parameters
    ----------
    schema : mapping or Arrow schema, optional
        The members to read and their types: a mapping of names to types, where a type is a string
        such as ``"int64"``, ``"float64"``, ``"utf8"``, ``"bool"``, ``"timestamp[ms, UTC]"``,
        ``"list<int64>"``, ``"struct<a: int64>"``, or any object with ``__arrow_c_schema__``
        (``pyarrow.int64()``); or a whole schema with ``__arrow_c_schema__`` (``pyarrow.schema``).
        Members that are not in the schema are not read; missing ones are null.
    infer : int, default 1000
        Without a schema: the number of records from the start of the scan that decide it. The
        schema is decided once per scan.
    exclude : iterable of str
        When writing: columns that do not go into the value (the columns that are taken as key,
        partition, timestamp or headers stay in the value unless they are named here).

    Returns
    -------
    Format
        The format, for ``value=`` of ``scan``, ``consumer`` and ``write``.

    Examples
    --------
    >>> import ottla
    >>> ottla.json({"id": "int64", "when": ottla.ts("ms")})
    ottla.json(schema={'id': 'int64', 'when': 'timestamp[ms, UTC]'})
    """
    if isinstance(exclude, str):
        raise ConfigError(f"exclude={exclude!r} is one string: pass a list of column names")
    if infer < 1:
        raise ConfigError(f"infer={infer} looks at no record")
    if isinstance(schema, Mapping):
        schema = dict(schema)
    return Format("json", schema=schema, infer=infer, exclude=tuple(exclude))
