"""The part of a client that makes windows of topics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ottla._arguments import keywords
from ottla._bounds import Limit
from ottla._kafka_columns import kafka_struct
from ottla._names import partition_numbers, topic_name
from ottla._scanning import Scanning, column_list
from ottla._windows import Feed, Windows, micros
from ottla.errors import ConfigError, DataLossError
from ottla.formats import as_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta
    from typing import Literal

    import polars as pl

    from ottla._bounds import Bound
    from ottla._connection import Timeout
    from ottla.formats import Format
    from ottla.typing import FormatName, IsolationLevel, OnDataLoss, OnErrorOfRow

__all__ = ["Windowing"]


class Windowing(Scanning):
    """The part of a :class:`Client` that makes windows."""

    def windows(
        self,
        topic: str,
        every: str | timedelta,
        *,
        by: str = "timestamp",
        grace: str | timedelta = "0s",
        late: Literal["raise", "drop"] | Callable[[pl.DataFrame], object] = "raise",
        idle: Literal["hold", "skip"] = "hold",
        resume: Mapping[str, Any] | None = None,
        end: Bound = None,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        partitions: Iterable[int] | None = None,
        isolation_level: IsolationLevel | None = None,
        on_error: OnErrorOfRow = "raise",
        on_data_loss: OnDataLoss = "raise",
        batch_rows: int = 10_000,
        threads: int | None = None,
        timeout: Timeout = 30.0,
    ) -> Windows:
        """Return the event-time windows of a topic that are closed, each once, in order.

        A window has the rows whose times are from its start and before its end; it is closed when
        each partition has a row later than its end by the grace. The rows are handed out as they
        are: aggregate them with the library of your choice. A window without rows is left out.
        Windows that are still open at the end of the topic are left for the next run, which goes
        on with ``resume=`` and reads their rows again. Needs polars.

        Parameters
        ----------
        topic : str
            The name of the topic.
        every : str or datetime.timedelta
            How long a window is, for example ``"1m"``: a whole number with ms, s, m, h or d.
            Windows begin at multiples of it since 1970, UTC.
        by : str, default "timestamp"
            The column of the times, a timestamp or a date; that of the records by default. UTC when
            it has no zone.
        grace : str or datetime.timedelta, default "0s"
            How long after the end of a window its rows may come: a row is late when its partition
            had a row before it that is later than the end of its window by the grace or more.
        late : {"raise", "drop"} or callable, default "raise"
            What to do with late rows: raise :class:`LateRowError`; leave them out; or call a
            function with them, a ``polars.DataFrame``. It is called before the next window is
            handed out, so after a crash perhaps again with the same rows.
        idle : {"hold", "skip"}, default "hold"
            What a partition that was read to its end does to windows that end after its latest row:
            hold them open until it has later ones; or nothing, so that rows that come to it
            afterwards are late. A partition that never had a row holds nothing open.
        resume : mapping, optional
            The ``checkpoint`` of an earlier run or window, also from JSON: go on behind it.
            Without one the topic is read from its beginning. Store it in one transaction with what
            you made of the window, or write that under the start of the window, which is the same
            when a run repeats it: either way each window counts once, whenever the program dies.
        end : Bound, optional
            Where to stop, as for :meth:`scan`; "latest" by default, as of now.
        value, columns, partitions, isolation_level, on_data_loss, batch_rows, threads
            As for :meth:`scan`. In memory are the rows of open windows, and what is read ahead of
            each partition.
        on_error : {"raise", "null"}, default "raise"
            What to do with a value that cannot be decoded: raise :class:`DecodeError`, or make its
            columns null.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the bounds, in seconds.

        Returns
        -------
        Windows
            An iterator of :class:`Window`.

        Raises
        ------
        LateRowError
            When a row is late; raised by the iterator.
        DecodeError
            When a row has no time, such as a tombstone whose time is in the value, or a value does
            not match its format; raised by the iterator.
        DataLossError
            When rows that the windows need are gone, or the topic was created again.
        ConfigError
            When an argument is not acceptable, or not that of the checkpoint.

        Examples
        --------
        >>> import ottla
        >>> from datetime import datetime, timedelta
        >>> with ottla.Broker(config={"log.retention.ms": -1}) as broker:
        ...     kafka = broker.client()
        ...     for second in (5, 50, 70, 30, 200):
        ...         at = datetime(2024, 1, 1) + timedelta(seconds=second)
        ...         _ = kafka.send("clicks", f"{second}", timestamp=at)
        ...     windows = kafka.windows("clicks", "1m", grace="20s", value=ottla.text())
        ...     for window in windows:
        ...         print(window.start.time(), window.to_polars()["value"].to_list())
        00:00:00 ['5', '50', '30']
        00:01:00 ['70']
        """
        options = keywords(Windowing.windows, locals())
        topic, limit = topic_name(topic), Limit(timeout)
        facts: dict[str, Any] = {
            "topic": topic,
            "every_us": micros(every, "every"),
            "grace_us": micros(grace, "grace"),
            "by": by,
        }
        _refuse(options, facts)
        names = ("isolation_level", "on_error", "on_data_loss", "batch_rows", "threads")
        reading = {name: options[name] for name in names}
        chosen = None if partitions is None else sorted({*partition_numbers(partitions)})
        starts = {} if resume is None else {int(one): at for one, at in resume["offsets"].items()}
        whole = self.scan(
            topic,
            {topic: starts},
            end,
            partitions=chosen,
            value=as_format(value),
            **reading,
            timeout=limit.left(),
        )
        facts["topic_id"] = whole._native.topic_id  # noqa: SLF001
        if resume is not None:
            _compare(facts, resume)
        struct = kafka_struct(whole.schema)
        prefix = "" if struct is None else f"{struct}."
        asked, hidden = column_list(columns), []
        if asked is not None:
            needed = [name for name in (f"{prefix}offset", by) if name not in asked]
            # The struct is not there where no column of it was asked for.
            is_there = struct is not None and any(one.startswith(prefix) for one in asked)
            hidden = [one for one in needed if not (prefix and one.startswith(prefix))]
            if struct is not None and not is_there:
                hidden.append(struct)
            asked += needed
        same = whole._travelling().options["value"]  # noqa: SLF001 (the same columns everywhere)
        read = {} if resume is None else resume["read"]
        feeds = {}
        for partition, (first, last) in whole.offsets.items():
            scan = self.scan(
                topic,
                {partition: first},
                {partition: last},
                value=same,
                columns=asked,
                **reading,
                timeout=limit.left(),
            )
            feeds[partition] = Feed(scan, first, max(first, read.get(str(partition), first)))
        return Windows(
            topic,
            feeds,
            facts=facts,
            closed=None if resume is None else resume["closed_us"],
            late=late,
            holds=idle == "hold",
            struct=struct,
            hidden=hidden,
        )


def _refuse(options: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    if facts["every_us"] < 1000:  # noqa: PLR2004
        raise ConfigError("every= must be at least a millisecond")
    if facts["grace_us"] < 0:
        raise ConfigError("grace= must not be negative")
    if options["late"] not in ("raise", "drop") and not callable(options["late"]):
        raise ConfigError(f"late={options['late']!r}: use raise, drop or a function")
    if options["idle"] not in ("hold", "skip"):
        raise ConfigError(f"idle={options['idle']!r}: use hold or skip")
    if options["on_error"] not in ("raise", "null"):
        raise ConfigError(f"on_error={options['on_error']!r}: for windows it is raise or null")
    if options["resume"] is not None and not isinstance(options["resume"], Mapping):
        raise TypeError("resume= of windows takes the checkpoint of a window")
    for name in options["columns"] or ():
        if not isinstance(name, str):
            raise TypeError(f"columns= of windows takes names, not {name!r}")


def _compare(facts: Mapping[str, Any], resume: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of other windows."""
    missing = facts.keys() - resume.keys()
    if missing:
        raise ConfigError(
            f"resume= is no checkpoint of windows, which has {', '.join(sorted(missing))}, too"
        )
    if facts["topic_id"] != resume["topic_id"]:
        raise DataLossError(
            f"topic {facts['topic']} was deleted and re-created since the checkpoint was taken "
            f"(its id was {resume['topic_id']}, now it is {facts['topic_id']})"
        )
    for name in ("topic", "every_us", "grace_us", "by"):
        if facts[name] != resume[name]:
            raise ConfigError(
                f"resume= was taken with {name.removesuffix('_us')}={resume[name]!r}, and now it "
                f"is {facts[name]!r}: rows could be lost or come twice. Begin anew, or use the same"
            )
