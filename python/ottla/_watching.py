"""A topic at a glance: its newest records, how fast it grows, and how far groups are behind.

A :class:`TopicWatch` asks the cluster and keeps what it found as plain texts; a notebook shows
them, live with anywidget and otherwise as HTML of the moment. What it asks for is bounded: the ends
of the partitions, the offsets of a few groups, and of the records those that are new and can be
shown.

With anywidget a thread asks again and again, but only as long as a page in a browser says that it
shows the widget. A notebook that is closed, or a cell that is run again, costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla._bounds import row_count, seconds
from ottla._groups import Groups
from ottla.errors import ClosedError, ConfigError, KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ottla.formats import Format
    from ottla.typing import FormatName

__all__ = ["TopicWatch"]

#: The most rows and columns of the tail, and characters of a cell.
_ROWS_MAX, _COLUMNS_MAX, _CHARACTERS = 100, 30, 200
#: Of how many partitions the newest records are read at once: those that grew most.
_TAIL_PARTITIONS = 8
#: How many partitions and groups are shown.
_SHOWN_PARTITIONS, _GROUPS_MAX = 50, 10
#: How often groups of the topic are looked for, in seconds, and among how many.
_SEARCH, _SEARCHED_MAX = 30.0, 50
#: How many rates are kept for the curve.
_HISTORY = 60
#: A page says this often that it is there, and is taken for gone after this long, in seconds.
_HERE_SECONDS, _GONE_SECONDS = 5.0, 15.0
#: How long one question may take, in seconds.
_TIMEOUT = 10.0

_KAFKA = ("partition", "offset", "timestamp", "key", "value")
_LEFT_OUT = frozenset({"topic", "timestamp_type", "headers"})


@dataclass(frozen=True)
class _Row:
    """A record of the tail: when and where it is, and the text of each column."""

    at: float
    partition: int
    offset: int
    cells: dict[str, str]


@dataclass
class _Seen:
    """What was found until now."""

    ends: dict[int, int] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    at: float | None = None
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    rows: list[_Row] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    groups_at: float | None = None
    #: How many groups of the cluster were not asked for when groups were looked for.
    groups_not_asked: int = 0


class TopicWatch:
    """The newest records of a topic, its rates and the lag of groups; made by ``topic.watch()``.

    The last line of a notebook's cell shows it: live with anywidget (``pip install
    "ottla[widget]"``), otherwise as it is at that moment. ``close()`` ends it, as the end of a
    ``with`` does.

    Parameters
    ----------
    client : Client
        The client.
    topic : str
        The name of the topic.
    rows : int
        How many records to show.
    every : float or datetime.timedelta
        How often to ask, in seconds.
    value : Format, str or mapping, optional
        How values become columns.
    groups : iterable of str, optional
        The groups whose lag to show; by default those that have offsets of the topic, the first 10
        among the first 50 groups of the cluster. How many groups were not asked for is shown.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     with kafka["words"].watch(rows=3) as watch:
    ...         watch.state["tail"]["rows"][0][-1], watch.state["records"]
    ...         _ = kafka.send("words", "two")
    ...         watch.refresh()
    ...         watch.state["records"], watch.closed
    ...     watch.close()
    ...     watch.closed
    ('one', 1)
    (2, False)
    True
    """

    def __init__(
        self,
        client: Any,
        topic: str,
        *,
        rows: int = 10,
        every: float | timedelta = 2.0,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        groups: Iterable[str] | None = None,
    ) -> None:
        self._client = client
        self._topic = topic
        self._count = row_count(rows, "rows")
        if not 1 <= self._count <= _ROWS_MAX:
            raise ConfigError(f"rows={rows}: show 1 to {_ROWS_MAX} records")
        self._every = seconds(every) or 0.0
        if not 0.1 <= self._every < threading.TIMEOUT_MAX:  # noqa: PLR2004 (ten times a second)
            raise ConfigError(f"every={every!r}: ask at most every 0.1 seconds")
        self._value = value
        if isinstance(groups, str):
            raise ConfigError(f"groups={groups!r} is one string: pass a list of groups")
        self._group_ids = None if groups is None else [str(one) for one in groups]
        if self._group_ids is not None and len(self._group_ids) > _GROUPS_MAX:
            raise ConfigError(f"groups= has {len(self._group_ids)}: show at most {_GROUPS_MAX}")
        self._seen = _Seen()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._live: _Live | None = None
        #: What is shown, as texts and numbers.
        self.state: dict[str, Any] = {"topic": topic, "error": None}
        self.refresh()

    @property
    def closed(self) -> bool:
        """Whether it was closed: nothing is asked any more."""
        return self._closed.is_set()

    def refresh(self) -> None:
        """Ask the cluster once.

        Raises
        ------
        ClosedError
            When this was closed.
        KafkaError
            When the cluster does not answer; in a notebook the next time may succeed.
        """
        with self._lock:
            if self.closed:
                raise ClosedError("the watch is closed")
            self.state = self._ask()

    def _ask(self) -> dict[str, Any]:
        seen, client, topic = self._seen, self._client, self._topic
        start = client.offsets(topic, "earliest", timeout=_TIMEOUT)
        end = client.offsets(topic, timeout=_TIMEOUT)
        now = time.monotonic()
        if seen.at is not None and now > seen.at:
            took = now - seen.at
            seen.rates = {
                one: max(0, last - seen.ends[one]) / took
                for one, last in end.items()
                if one in seen.ends
            }
            seen.history.append(round(sum(seen.rates.values()), 3))
        self._read_tail(start, end)
        seen.at, seen.ends = now, dict(end)
        partitions = [
            [one, start.get(one), last, round(seen.rates.get(one, 0.0), 1)]
            for one, last in sorted(end.items())
        ]
        return {
            "topic": topic,
            "cluster": client.bootstrap_servers,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "records": sum(max(0, last - start.get(one, 0)) for one, last in end.items()),
            "rate": seen.history[-1] if seen.history else None,
            "history": list(seen.history),
            "partitions": partitions[:_SHOWN_PARTITIONS],
            "num_partitions": len(partitions),
            "tail": self._tail(),
            "groups": self._groups(),
            "groups_not_asked": seen.groups_not_asked,
            "error": None,
        }

    def _read_tail(self, start: dict[int, int], end: dict[int, int]) -> None:
        """Read what is new, of the partitions that grew most, and keep the newest of all."""
        seen = self._seen
        # A topic that was created again has its offsets from the beginning.
        if any(last < seen.ends.get(one, 0) for one, last in end.items()):
            seen.rows = []
            seen.ends = {}
        new = {
            one: max(start.get(one, 0), seen.ends.get(one, 0), last - self._count)
            for one, last in end.items()
        }
        grew = [one for one in end if new[one] < end[one]]
        grew.sort(key=lambda one: end[one] - seen.ends.get(one, 0), reverse=True)
        chosen = grew[:_TAIL_PARTITIONS]
        if chosen:
            scan = self._client.scan(
                self._topic,
                start={one: new[one] for one in chosen},
                end={one: end[one] for one in chosen},
                value=self._value,
                on_error="raise" if self._value is None else "column",
                on_data_loss="warn",
                timeout=_TIMEOUT,
            )
            batch = scan._native.collect_tail(self._count)  # noqa: SLF001
            seen.rows += [_row(one) for one in batch.to_pylist()]
        gone = {one: first for one, first in start.items() if first}
        kept = [one for one in seen.rows if one.offset >= gone.get(one.partition, 0)]
        kept.sort(key=lambda one: (one.at, one.partition, one.offset))
        seen.rows = kept[-self._count :]

    def _tail(self) -> dict[str, Any]:
        names = dict.fromkeys(name for row in self._seen.rows for name in row.cells)
        wanted = [*_KAFKA, *(f"_kafka.{name}" for name in _KAFKA)]
        first = [name for name in wanted if name in names]
        chosen = [*first, *(name for name in names if name not in first)][:_COLUMNS_MAX]
        rows = [[row.cells.get(name, "") for name in chosen] for row in self._seen.rows]
        return {"columns": chosen, "rows": rows}

    def _groups(self) -> list[list[Any]]:
        groups, seen = Groups(self._client), self._seen
        names = self._group_ids
        now = time.monotonic()
        is_search = names is None and (seen.groups_at is None or now - seen.groups_at > _SEARCH)
        if is_search:
            # Which groups there are changes seldom, and each costs a question.
            names = [one.group_id for one in groups.list(timeout=_TIMEOUT)]
            seen.groups_at, seen.groups_not_asked = now, max(0, len(names) - _SEARCHED_MAX)
            names = names[:_SEARCHED_MAX]
        names = seen.groups if names is None else names
        found: list[list[Any]] = []
        for asked, name in enumerate(names, 1):
            try:
                group = groups.describe(name, timeout=_TIMEOUT)
            except KafkaError as error:
                if self._group_ids is None:
                    # One of all groups of the cluster that cannot be asked for is left out.
                    continue
                if error.name != "GROUP_ID_NOT_FOUND":
                    raise
                # It may come.
                found.append([name, "", 0, None])
                continue
            lags = [one.lag for one in group.partitions if one.topic == self._topic]
            if not lags and self._group_ids is None:
                continue
            lag = None if not lags or None in lags else sum(one or 0 for one in lags)
            found.append([name, group.state, len(group.members), lag])
            if len(found) == _GROUPS_MAX:
                seen.groups_not_asked += len(names) - asked
                break
        seen.groups = [row[0] for row in found]
        return found

    def close(self) -> None:
        """Stop asking; a second call does nothing. What was shown last stays."""
        self._closed.set()
        if self._live is not None:
            self._live.wake()

    def __enter__(self) -> TopicWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        records = self.state.get("records", 0)
        return f"<ottla.TopicWatch {self._topic}: {records:,} records>"

    def _repr_html_(self) -> str:
        state = self.state
        rate = "" if state["rate"] is None else f", {state['rate']:,.1f} per second"
        caption = f"Topic {self._topic} at {state['at']}: {state['records']:,} records{rate}"
        tail = state["tail"]
        picture = _frames.html_table(tail["columns"], tail["rows"], caption)
        if state["groups"]:
            picture += _frames.html_table(["group", "state", "members", "lag"], state["groups"])
        if state["groups_not_asked"]:
            picture += f"<div>{state['groups_not_asked']:,} more groups were not asked for</div>"
        return picture

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Return the widget where anywidget is there, and HTML for where it is not shown."""
        if self.closed:
            return {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self._live is None:
            try:
                self._live = _Live(self)
            except ImportError:
                return {"text/plain": repr(self), "text/html": self._repr_html_()}
        bundle = self._live.widget._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(data or {}), "text/html": self._repr_html_()}, metadata


class _Live:
    """The widget of a watch, and the thread that asks for it while a page shows it."""

    def __init__(self, watch: TopicWatch) -> None:
        import anywidget
        import traitlets

        widget_class = type(
            "TopicWatchWidget",
            (anywidget.AnyWidget,),
            {
                "_esm": Path(__file__).with_name("_watch.js"),
                "state": traitlets.Dict().tag(sync=True),
                "here_ms": traitlets.Int(int(_HERE_SECONDS * 1000)).tag(sync=True),
            },
        )
        self.widget = widget_class(state=watch.state)
        self._watch = watch
        self._every = watch._every  # noqa: SLF001
        self._here_at: float | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.widget.on_msg(self._heard)

    def _heard(self, _widget: object, content: object, _buffers: object) -> None:
        """Take a message of the page: that it is there."""
        if content != {"here": True} or self._watch.closed:
            return
        with self._changed:
            self._here_at = time.monotonic()
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ottla-watch", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while self._wait():
                self.widget.state = self._state()
        finally:
            # Whatever ends it, the next message of the page begins another.
            with self._changed:
                self._thread = None

    def _state(self) -> dict[str, Any]:
        """Ask, and return what to show."""
        watch = self._watch
        try:
            watch.refresh()
        except ClosedError:
            # The client was closed, or the watch meanwhile.
            watch.close()
        except KafkaError as error:
            return {**watch.state, "error": str(error)}
        return watch.state

    def _wait(self) -> bool:
        """Wait for the time to ask again; say whether there is somebody to ask for."""
        with self._changed:
            self._changed.wait(self._every)
            here = self._here_at is not None and (time.monotonic() - self._here_at < _GONE_SECONDS)
            if here and not self._watch.closed:
                return True
            self._thread = None
            return False


def _row(record: dict[str, Any]) -> _Row:
    # Where a column of the values has the name of one of Kafka's, these are in a struct.
    inner = record.pop("_kafka", None)
    kafka = record if inner is None else inner
    if kafka.get("error") is None:
        kafka.pop("error", None)
        kafka.pop("value_raw", None)
    cells = {name: value for name, value in record.items() if name not in _LEFT_OUT}
    if inner is not None:
        named = {f"_kafka.{name}": value for name, value in inner.items() if name not in _LEFT_OUT}
        cells = {**named, **record}
    at = kafka.get("timestamp")
    return _Row(
        at.timestamp() if isinstance(at, datetime) else 0.0,
        kafka["partition"],
        kafka["offset"],
        {name: _text(value) for name, value in cells.items()},
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value[: 4 * _CHARACTERS])
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = "0x" + value.hex()
    elif isinstance(value, datetime):
        value = value.isoformat(sep=" ", timespec="milliseconds")
    text = str(value)
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
