"""Progress of long calls: tqdm where it is installed, a plain bar on a terminal otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

#: Seconds between two redraws of the plain bar.
_INTERVAL = 0.1
_WIDTH = 30


class Progress(Protocol):
    """The part of tqdm's interface that is used to show progress."""

    def update(self, count: int) -> object:
        """Add to the number of finished rows."""

    def close(self) -> object:
        """Finish: there will be no more rows."""


class Silent:
    """Shows nothing."""

    def update(self, count: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A bar on standard error; silent when that is not a terminal.

    Parameters
    ----------
    total : int or None
        The number of rows expected; ``None`` when it is not known.
    label : str
        The text before the bar.
    """

    def __init__(self, total: int | None, label: str) -> None:
        self.total = total
        self._label = label
        self._note = ""
        self._done = 0
        self._started = time.monotonic()
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()

    def update(self, count: int) -> None:
        """Add to the number of finished rows."""
        self._done += count
        now = time.monotonic()
        if self._shown and now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._draw(now)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Show a note after the numbers, as tqdm does."""
        self._note = s
        if self._shown and refresh:
            self._draw(time.monotonic())

    def close(self) -> None:
        """Draw the bar for the last time."""
        if self._shown:
            self._draw(time.monotonic())
            sys.stderr.write("\n")
            self._shown = False

    def _draw(self, now: float) -> None:
        rate = self._done / max(now - self._started, 1e-9)
        if self.total:
            share = min(self._done / self.total, 1.0)
            bar = ("█" * round(share * _WIDTH)).ljust(_WIDTH, "░")
            body = f"{bar} {share:4.0%} {self._done:,} of {self.total:,} rows"
        else:
            body = f"{self._done:,} rows"
        note = f", {self._note}" if self._note else ""
        sys.stderr.write(f"\r{self._label} {body}, {rate:,.0f}/s{note}\x1b[K")
        sys.stderr.flush()


def is_open_ended(progress: Any) -> bool:
    """Return whether a progress object takes a total and was created without one."""
    return hasattr(progress, "total") and progress.total is None


def set_total(progress: Any, total: int) -> None:
    """Set the total of a progress object, such as a tqdm."""
    if progress.total != total:
        progress.total = total
        refresh = getattr(progress, "refresh", None)
        if refresh is not None:
            refresh()


def set_note(progress: Any, note: str) -> None:
    """Show a note if the progress object supports it; a tqdm shows it after its numbers."""
    show = getattr(progress, "set_postfix_str", None)
    if show is not None:
        show(note)


def start(progress: Any, total: int | None, label: str) -> Progress:
    """Start showing progress.

    Parameters
    ----------
    progress : bool or object
        ``True`` for a bar, ``False`` for nothing, or an object with ``update(count)`` and
        ``close()``, for example a ``tqdm``.
    total : int or None
        The number of rows expected.
    label : str
        The text before the bar.
    """
    if progress is False or progress is None:
        return Silent()
    if progress is not True:
        if not callable(getattr(progress, "update", None)) or not callable(
            getattr(progress, "close", None)
        ):
            raise TypeError(
                f"progress= takes True, False, or an object with update(count) and close(), not "
                f"{progress!r}"
            )
        shown: Progress = progress
        if total is not None and is_open_ended(shown):
            set_total(shown, total)
        return shown
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return Bar(total, label)
    bar: Progress = tqdm(total=total, desc=label, unit=" rows", unit_scale=True)
    return bar
