"""Objects of a column on their way to Arrow, and the words that refuse them.

A message names the column, the row, and the place inside of the row's value, and says what to do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ottla.errors import ConfigError

__all__ = ["Column", "Values", "shown"]

#: Nesting deeper than this is an error; an object may contain itself.
_DEPTH_MAX = 64
_SHOWN_MAX = 60


class Column(NamedTuple):
    """A column in words."""

    #: What it is, up to a colon.
    opening: str
    #: What to do about it, in general.
    remedy: str
    #: Its name as Python text, as part of an expression: ``df['a']``.
    expression: str


class Values(NamedTuple):
    """Values of a column, or those at one place inside its values."""

    column: Column
    #: ``None`` for a null.
    values: list[Any]
    #: The row of each.
    rows: Any
    #: Where they are in a row: ``[].x`` for the member x of the items of a list.
    path: str = ""
    depth: int = 0

    def inside(self, values: list[Any], rows: Any, path: str) -> Values:
        """Return the values inside of these."""
        if self.depth >= _DEPTH_MAX:
            raise self.refusal(f"row {rows[0]} is nested more than {_DEPTH_MAX} levels deep")
        return Values(self.column, values, rows, self.path + path, self.depth + 1)

    def at(self, index: int, kind: str = "") -> str:
        """Return where a value is and what it is."""
        value = self.values[index]
        told = f"{shown(value)} ({kind or type(value).__name__})"
        row = self.rows[index]
        return f"row {row} has {told} at {self.path}" if self.path else f"row {row} is {told}"

    def refusal(self, detail: str, remedy: str = "") -> ConfigError:
        """Return the error about the column."""
        if self.path or not remedy:
            remedy = self.column.remedy
        return ConfigError(f"{self.column.opening}: {detail}. {remedy}")

    def out_of_range(self, at: int, detail: str, remedy: str = "") -> ConfigError:
        """Return the error about one value."""
        return self.refusal(f"{self.at(at)}, {detail}", remedy)

    def disagreement(
        self, first: int, second: int, kinds: tuple[str, str] = ("", ""), remedy: str = ""
    ) -> ConfigError:
        """Return the error about two values that go into no column together."""
        return self.refusal(
            f"Arrow has no type that keeps all of its values: {self.at(second, kinds[1])}, but "
            f"{self.at(first, kinds[0])}",
            remedy,
        )


def shown(value: Any) -> str:
    """Return a value as Python writes it, not too long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an error of another's `__repr__` is not worth telling.
        return "a value"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
