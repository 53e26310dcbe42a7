"""What a value format and a header column are; ``ottla.formats`` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla._registry import SchemaRegistry

__all__ = ["Format", "Header", "column_names", "header", "is_fixed"]


@dataclass(frozen=True)
class Format:
    """A value format; created by the functions of this module, such as :func:`json`.

    Parameters
    ----------
    kind : {"raw", "text", "json", "avro", "protobuf", "debezium", "arrow_ipc"}
        The name of the format.
    schema : optional
        The columns of a JSON object, the text of a schema, or compiled descriptors.
    infer : int, default 1000
        How many records are read to infer the columns when no schema is given.
    exclude : tuple of str
        Columns to leave out when writing.
    column : str, default "value"
        The column of a raw or text value.
    registry : SchemaRegistry, optional
        The registry of the schemas.
    framed : bool, default False
        Whether values have the header of a schema registry.
    subject : str, optional
        The subject in the registry.
    latest : bool, default True
        Whether columns come from the subject's latest schema instead of that of the first value.
    register : bool, default True
        Whether to register a schema that the registry does not know.
    references : tuple of (name, subject, version)
        The schemas in the registry that the schema refers to.
    imports : tuple of (name, text)
        The files that a Protobuf schema imports.
    message : str, optional
        The name of a Protobuf message.
    time_unit : {"ns", "us"}, default "ns"
        The unit of Protobuf's times and durations.
    inner : Format, optional
        The format of Debezium's events.
    unwrap : bool, default False
        Whether the columns are those of the changed row.
    decimals : {"precise", "string"}, optional
        How decimals written as strings are read in Debezium's JSON events.
    max_rows : int, default 10000
        The most rows in a record that is an Arrow IPC stream.
    compression : {"lz4", "zstd"}, optional
        How the buffers of such a stream are compressed.
    extra : {"error", "ignore"}, optional
        What to do with members of a JSON object that are not among the columns.
    nan : {"error", "null", "text"}, default "error"
        How to write NaN and the infinities as JSON.
    """

    kind: str
    schema: Any = None
    infer: int = 1000
    exclude: tuple[str, ...] = ()
    column: str = "value"
    registry: SchemaRegistry | None = None
    framed: bool = False
    subject: str | None = None
    latest: bool = True
    register: bool = True
    references: tuple[tuple[str, str, int], ...] = ()
    imports: tuple[tuple[str, str], ...] = ()
    message: str | None = None
    time_unit: str = "ns"
    inner: Format | None = None
    unwrap: bool = False
    decimals: str | None = None
    max_rows: int = 10_000
    compression: str | None = None
    extra: str | None = None
    nan: str = "error"

    def __repr__(self) -> str:  # noqa: C901, PLR0912
        if self.kind in {"raw", "text"}:
            return f"ottla.{self.kind}({self.column!r})"
        if self.kind == "debezium":
            more = ", unwrap=True" if self.unwrap else ""
            if self.decimals is not None:
                more += f", decimals={self.decimals!r}"
            return f"ottla.debezium({self.inner!r}{more})"
        details = []
        if isinstance(self.schema, bytes):
            details.append("schema=…")
        elif self.schema is not None:
            details.append(f"schema={self.schema!r}")
        if self.message is not None:
            details.append(f"message={self.message!r}")
        if self.time_unit != Format.time_unit:
            details.append(f"time_unit={self.time_unit!r}")
        if self.registry is not None:
            details.append(f"registry={self.registry!r}")
        elif self.framed:
            details.append("framed=True")
        if self.subject is not None:
            details.append(f"subject={self.subject!r}")
        if not self.latest:
            details.append("columns_from='first'")
        if not self.register:
            details.append("auto_register=False")
        if self.max_rows != Format.max_rows:
            details.append(f"max_rows={self.max_rows}")
        if self.compression is not None:
            details.append(f"compression={self.compression!r}")
        if self.extra is not None:
            details.append(f"extra={self.extra!r}")
        if self.nan != Format.nan:
            details.append(f"nan={self.nan!r}")
        if self.exclude:
            details.append(f"exclude={list(self.exclude)!r}")
        return f"ottla.{self.kind}({', '.join(details)})"


@dataclass(frozen=True)
class Header:
    """A header as a column; created by :func:`header`.

    Parameters
    ----------
    key : str
        The key of the header.
    name : str
        The name of the column.
    text : bool
        Whether the column is text; bytes otherwise.
    """

    key: str
    name: str
    text: bool = True

    def __repr__(self) -> str:
        named = "" if self.name == self.key else f", name={self.name!r}"
        return f"ottla.header({self.key!r}{named}{'' if self.text else ', text=False'})"


def header(key: str, *, name: str | None = None, text: bool = True) -> Header:
    """Read one header of the records as a column; or write a column as a header.

    Parameters
    ----------
    key : str
        The key of the header. If a record has several, the last one counts; a record without it has
        null.
    name : str, optional
        The name of the column; by default the key.
    text : bool, default True
        Whether the column is text (string_view; a value that is not UTF-8 is a decode error) or
        bytes (binary_view).

    Returns
    -------
    Header
        For ``columns=`` of ``scan`` and ``consumer``, next to the names of other columns; and for
        ``headers=`` of ``write``, which accepts what a key may be, regardless of ``text``.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one", headers={"trace": "a1"})
    ...     kafka.scan("words", columns=["offset", ottla.header("trace")]).head().to_pylist()
    [{'offset': 0, 'trace': 'a1'}]
    """
    return Header(key, key if name is None else name, text)


def is_fixed(value: Format) -> bool:
    """Whether the columns of values are known without a value or a registry."""
    if value.kind in {"raw", "text"}:
        return True
    if value.kind == "debezium":
        return value.inner is not None and is_fixed(value.inner)
    return value.schema is not None and value.registry is None


def column_names(exclude: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that are left out."""
    if isinstance(exclude, str):
        raise ConfigError(f"exclude={exclude!r} is one string: pass a list of column names")
    return tuple(exclude)
