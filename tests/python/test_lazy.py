"""A scan as a LazyFrame: what a query does not need is not read, and no row is lost by that."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import ottla
import properties
from ottla._lazy import from_time, places_of
from ottla._scan_parts import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START = datetime(2024, 6, 1, tzinfo=timezone.utc)
ROWS = 400
FORM = ottla.json({"n": "int64", "text": "utf8"})
#: A seventh of the texts is no date, and their rows have neither text nor number.
DATES = ottla.json({"n": "int64", "text": "date32"})
OFFSET, PARTITION, TIMESTAMP, N = map(pl.col, ("offset", "partition", "timestamp", "n"))


@pytest.fixture(scope="module")
def filled(shared: ottla.Client) -> str:
    """A topic of rows whose timestamps are in disorder, with compressed batches of many rows."""
    chance = random.Random(17)
    shared.create_topic("lazy", partitions=3, config={"retention.ms": -1})
    frame = pl.DataFrame(
        {
            "n": range(ROWS),
            "text": [f"2024-01-0{number % 7}" for number in range(ROWS)],
            "at": [START + timedelta(milliseconds=chance.randrange(200)) for _ in range(ROWS)],
            "to": [chance.randrange(3) for _ in range(ROWS)],
        }
    )
    for part in frame.iter_slices(90):
        options: dict[str, Any] = {"timestamp": "at", "partition": "to", "compression_type": "lz4"}
        shared.write("lazy", part, value=ottla.json(exclude=["at", "to"]), **options)
    return "lazy"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """What is read of the topic."""
    made: list[Recipe] = []
    make = Recipe.make

    def spied(self: Recipe, connection: Any = None) -> Any:
        made.append(self)
        return make(self, connection)

    monkeypatch.setattr(Recipe, "make", spied)
    return made


def by_place(frame: pl.DataFrame) -> pl.DataFrame:
    names = [name for name in ("partition", "offset") if name in frame.columns]
    return frame.sort(names or frame.columns)


MOMENTS = st.builds(
    lambda ms, us: START + timedelta(milliseconds=ms, microseconds=us),
    st.integers(-5, 205),
    st.sampled_from([0, 0, 1, 999]),
)
VALUES: dict[str, Any] = {
    "offset": st.integers(-2, ROWS // 3 + 30),
    "partition": st.integers(-1, 4),
    "timestamp": MOMENTS,
    "n": st.integers(0, ROWS),
}


@st.composite
def conditions(draw: Any) -> pl.Expr:
    """A comparison of a column, in one of the ways that users write it."""
    name = draw(st.sampled_from(list(VALUES)))
    column, values = pl.col(name), VALUES[name]
    one, other = draw(values), draw(values)
    ways: list[Callable[[], pl.Expr]] = [
        lambda: column >= one,
        lambda: column > one,
        lambda: column <= one,
        lambda: column < one,
        lambda: column == one,
        lambda: column != one,
        lambda: pl.lit(one) <= column,
        lambda: column.is_between(one, other, closed=draw(st.sampled_from(CLOSED))),
        lambda: column.is_in([one, other]),
        lambda: ~(column < one),
        lambda: pl.lit(None, pl.Boolean) if draw(st.booleans()) else pl.lit(value=True),
    ]
    return draw(st.sampled_from(ways))()


CLOSED = ["both", "left", "right", "none"]
PREDICATES = st.recursive(
    conditions(),
    lambda inner: st.builds(
        lambda left, right, way: left & right if way else left | right,
        inner,
        inner,
        st.booleans() | st.just(value=True),
    ),
    max_leaves=6,
)


@settings(properties.SLOW, max_examples=150)
@given(
    PREDICATES,
    st.sampled_from([None, ["n"], ["offset", "text"], ["timestamp"]]),
    st.sampled_from(["raise", "null", "column"]),
)
def test_a_query_has_the_rows_that_it_has_over_everything(
    shared: ottla.Client,
    filled: str,
    predicate: pl.Expr,
    columns: list[str] | None,
    on_error: str,
) -> None:
    form = FORM if on_error == "raise" else DATES
    scan = shared.scan(filled, value=form, on_error=on_error)
    wanted, query = scan.to_polars(), scan.lazy()
    # Each is what a user may write after the other.
    wanted, query = wanted.filter(predicate), query.filter(predicate)
    if columns is not None:
        wanted, query = wanted.select(columns), query.select(columns)
    found = query.collect()
    assert_frame_equal(by_place(found), by_place(wanted), categorical_as_str=True)


def read_ranges(reads: list[Recipe]) -> dict[int, tuple[int, int]]:
    (one,) = reads
    return one.offsets


def test_offsets_and_partitions_are_not_fetched_that_are_not_asked_for(
    shared: ottla.Client, filled: str, reads: list[Recipe]
) -> None:
    query = shared.scan(filled, value=FORM).lazy()
    reads.clear()
    found = query.filter(OFFSET.is_between(10, 20), PARTITION.is_in([0, 2]), N > 5).collect()
    assert read_ranges(reads) == {0: (10, 21), 2: (10, 21)}
    assert found.height == 22
    reads.clear()
    assert query.filter(PARTITION == 7).collect().height == 0
    assert query.filter(OFFSET > 10_000).select(pl.len()).collect().item() == 0
    assert reads == []


def test_only_the_lower_bound_of_timestamps_says_where_rows_are(
    shared: ottla.Client, name: str, reads: list[Recipe]
) -> None:
    now = datetime.now(timezone.utc)
    for seconds in (0, 10, 20, 5, 30):
        moment = now + timedelta(seconds=seconds - 60)
        shared.send(name, f"{seconds}", timestamp=moment, partition=0)
    times = shared.scan(name, columns=["timestamp"]).to_polars()["timestamp"].to_list()
    query = shared.scan(name, value="text").lazy()
    reads.clear()
    found = query.filter(times[2] <= TIMESTAMP).collect()
    assert found["value"].to_list() == ["20", "30"]
    assert read_ranges(reads) == {0: (2, 5)}
    reads.clear()
    found = query.filter(times[2] > TIMESTAMP).collect()
    assert found["value"].to_list() == ["0", "10", "5"]
    assert read_ranges(reads) == {0: (0, 5)}
    reads.clear()
    assert query.filter(times[4] < TIMESTAMP).collect().height == 0
    assert read_ranges(reads)[0][1] == 5


@pytest.mark.parametrize("loss", ["raise", "warn"])
def test_a_time_does_not_hide_that_records_are_gone(
    shared: ottla.Client, name: str, loss: Any
) -> None:
    now = datetime.now(timezone.utc) - timedelta(minutes=1)
    for seconds in range(4):
        shared.send(name, f"{seconds}", timestamp=now + timedelta(seconds=seconds), partition=0)
    scan = shared.scan(name, value="text", on_data_loss=loss)
    times = scan.to_polars()["timestamp"].to_list()
    query = scan.lazy()
    shared.delete_records(name, {0: 2})
    # Offset 1 is one of these rows, and the first that is left is offset 2.
    late = query.filter(times[1] <= TIMESTAMP)
    if loss == "warn":
        assert late.collect()["value"].to_list() == ["2", "3"]
    else:
        with pytest.raises(ottla.DataLossError):
            late.collect()
    # These offsets are all there.
    assert late.filter(OFFSET >= 2).collect()["value"].to_list() == ["2", "3"]


def test_a_time_behind_an_open_transaction_is_found(shared: ottla.Client, name: str) -> None:
    moment = datetime.now(timezone.utc)
    shared.send(name, "old", timestamp=moment - timedelta(seconds=60), partition=0)
    with shared.transactional(f"{name}-writer") as producer, producer.transaction() as tx:
        tx.write(name, [{"a": 1}], partition=0)
        shared.send(name, "after", partition=0)
        # The lookups of the client see what is committed, and the scan sees all.
        scan = shared.scan(name, isolation_level="read_uncommitted")
        found = scan.lazy().filter(moment - timedelta(seconds=30) <= TIMESTAMP).collect()
        assert found["offset"].to_list() == [1, 2]


class Grows:
    """A partition with open offsets from 10 on, which are committed between two lookups."""

    def __init__(self, *, earliest: int, found: int | None) -> None:
        self.earliest, self.found, self.end = earliest, found, 10

    def list_offsets(self, _topic: str, at: tuple[str, Any], _timeout: Any) -> dict[int, int]:
        if at[0] == "earliest":
            return {0: self.earliest}
        if at[0] == "latest":
            return {0: self.end}
        # Where nothing is found, the end is asked for, a moment later.
        self.end = 20
        return {0: self.end if self.found is None else self.found}


@pytest.mark.parametrize(
    ("earliest", "found", "start"), [(0, None, 10), (0, 7, 7), (2, 7, 0), (2, None, 0), (0, 15, 10)]
)
def test_a_time_that_is_not_found_moves_the_start_no_further_than_was_looked(
    earliest: int, found: int | None, start: int
) -> None:
    admin = Grows(earliest=earliest, found=found)
    assert from_time(admin, "topic", {0: (0, 20), 1: (3, 4)}, 0) == {0: (start, 20), 1: (3, 4)}


def test_columns_that_a_query_does_not_need_are_not_decoded(
    shared: ottla.Client, filled: str, reads: list[Recipe]
) -> None:
    query = shared.scan(filled, value=FORM).lazy()
    reads.clear()
    assert query.filter(N >= 0).select(pl.sum("offset")).collect().item() > 0
    (one,) = reads
    assert sorted(one.options["columns"]) == ["n", "offset"]
    reads.clear()
    assert query.select(pl.len()).collect().item() == ROWS
    (one,) = reads
    assert len(one.options["columns"]) == 1


@pytest.mark.parametrize("on_error", ["null", "column", "dlq"])
@pytest.mark.parametrize("columns", [None, ["offset", "id", "amount"]])
def test_a_query_finds_the_values_bad_that_all_columns_do(
    shared: ottla.Client, name: str, on_error: str, columns: list[str] | None
) -> None:
    for amount in ("7", '"bad"', "9"):
        shared.send(name, f'{{"id": 1, "amount": {amount}}}', partition=0)
    form = {"id": "int64", "amount": "int64"}
    if on_error == "dlq":
        on_error = f"dlq:{name}.dlq"
    if columns is not None and on_error == "column":
        columns = [*columns, "error", "value_raw"]
    scan = shared.scan(name, value=form, on_error=on_error, columns=columns)
    asked = [["id"], ["offset"], ["amount", "offset"]]
    if on_error == "column":
        asked += [["error"], ["value_raw", "id"]]
    for names in asked:
        wanted = scan.to_polars().select(names)
        assert_frame_equal(scan.lazy().select(names).collect(), wanted)
    count = scan.lazy().select(pl.len()).collect().item()
    assert count == scan.count() == (2 if on_error.startswith("dlq") else 3)


def test_a_number_of_rows_counts_those_before_the_filter(shared: ottla.Client, filled: str) -> None:
    query = shared.scan(filled, value=FORM, partitions=[1]).lazy()
    first = query.head(3).collect()
    assert first["offset"].to_list() == [0, 1, 2]
    assert query.head(3).filter(OFFSET >= 2).collect()["offset"].to_list() == [2]
    assert query.filter(OFFSET >= 2).head(3).collect()["offset"].to_list() == [2, 3, 4]
    assert query.head(0).collect().height == 0
    assert (
        query.tail(1).collect()["offset"].item() == query.select(pl.max("offset")).collect().item()
    )


def test_members_with_the_names_of_kafkas_columns_are_not_taken_for_them(
    shared: ottla.Client, name: str
) -> None:
    for number in range(5):
        shared.send(name, {"offset": number * 100, "partition": "x"}, partition=0)
    value = {"offset": "int64", "partition": "utf8"}
    for columns in (None, ["offset", "partition"], ["partition", "_kafka.offset", "offset"]):
        query = shared.scan(name, value=value, columns=columns).lazy()
        found = query.filter(OFFSET >= 300, PARTITION == "x").collect()
        assert found["offset"].to_list() == [300, 400]
    found = query.filter(pl.col("_kafka").struct.field("offset") == 2).collect()
    assert found["offset"].to_list() == [200]


def test_what_a_scan_was_asked_for_holds(shared: ottla.Client, name: str) -> None:
    for number in range(6):
        shared.send(name, f'{{"n": {number}}}' if number % 2 else "no json", headers={"h": "x"})
    columns: list[str | ottla.Header] = ["offset", "n", ottla.header("h"), "error"]
    scan = shared.scan(
        name, {0: 1}, {0: 5}, value={"n": "int64"}, columns=columns, on_error="column", max_rows=3
    )
    assert scan.lazy().collect()["offset"].to_list() == [1, 2, 3]
    assert scan.lazy().select("h", "n").collect().rows() == [("x", 1), ("x", None), ("x", 3)]
    assert scan.lazy().filter(pl.col("error").is_not_null()).collect()["offset"].item() == 2
    empty = shared.scan(name, {0: 2}, {0: 2}, value={"n": "int64"}).lazy()
    assert empty.collect().is_empty()
    assert empty.collect_schema()["n"] == pl.Int64
    with pytest.raises(ottla.DecodeError, match=f"{name}-0"):
        shared.scan(name, value={"n": "int64"}).lazy().collect()
    # What was inferred at first is read everywhere, also from places where it would be otherwise.
    inferred = shared.scan(name, {0: 3}, value=ottla.json(), on_error="null").lazy()
    assert inferred.filter(OFFSET == 4).collect()["n"].to_list() == [None]


def test_a_scan_that_travelled_is_lazy_too(remote_copy: ottla.Scan) -> None:
    assert remote_copy.lazy().filter(OFFSET >= 1).collect()["value"].to_list() == ["b"]


@pytest.fixture
def remote_copy(kafka: ottla.Client, name: str) -> ottla.Scan:
    import pickle

    for word in ("a", "b"):
        kafka.send(name, word)
    copy: ottla.Scan = pickle.loads(pickle.dumps(kafka.scan(name, value="text")))
    return copy


def test_conditions_are_understood_in_the_ways_that_polars_passes_them() -> None:
    """Were they not, the other tests would pass, and all of the topic be read."""
    seen: list[pl.Expr] = []

    def source(_names: Any, predicate: Any, _rows: Any, _size: Any) -> Iterator[pl.DataFrame]:
        seen.append(predicate)
        yield from ()

    from polars.io.plugins import register_io_source

    schema = {
        "offset": pl.Int64,
        "partition": pl.Int32,
        "timestamp": pl.Datetime("ms", "UTC"),
        "n": pl.Int64,
    }
    moment = START + timedelta(microseconds=1500)
    cases: list[tuple[pl.Expr, tuple[int, int | None, int | None]]] = [
        (OFFSET >= 5, (5, None, None)),
        (OFFSET > 5, (6, None, None)),
        (OFFSET < 5, (0, 5, None)),
        (OFFSET <= 5, (0, 6, None)),
        (OFFSET == 5, (5, 6, None)),
        (OFFSET.is_between(5, 7), (5, 8, None)),
        (OFFSET.is_between(5, 7, closed="none"), (6, 7, None)),
        ((OFFSET >= 5) & (N > 0) & (OFFSET < 9), (5, 9, None)),
        ((OFFSET >= 5) | (N > 0), (0, None, None)),
        (OFFSET + 1 > 5, (0, None, None)),
        (OFFSET != 5, (0, None, None)),
        (moment <= TIMESTAMP, (0, None, 1)),
        (moment < TIMESTAMP, (0, None, 1)),
        (moment < TIMESTAMP, (0, None, 1)),
        (moment > TIMESTAMP, (0, None, None)),
        (moment == TIMESTAMP, (0, None, 1)),
        (TIMESTAMP.is_between(moment, moment + timedelta(days=1)), (0, None, 1)),
    ]
    for condition, (start, end, since) in cases:
        register_io_source(source, schema=schema).filter(condition).collect()
        places = places_of(seen.pop())
        start_ms = int(START.timestamp() * 1000)
        wanted = None if since is None else start_ms + since
        assert (places.start, places.end, places.since) == (start, end, wanted), str(condition)
    both = places_of((PARTITION >= 1) & (PARTITION * 2 < 6) & (OFFSET > 3))
    assert both.within({0: (0, 9), 1: (0, 9), 2: (0, 3), 3: (0, 9)}) == {1: (4, 9)}
