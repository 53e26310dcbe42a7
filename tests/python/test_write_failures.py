"""A write that fails says what was acknowledged before, whatever made it fail."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla


def test_a_write_that_fails_says_what_was_acknowledged(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1, config={"max.message.bytes": 2000})
    texts = ["x" * 1500] * 5 + ["y" * 3000] + ["x" * 1500] * 5
    with pytest.raises(ottla.MessageTooLargeError) as caught:
        kafka.write(name, pl.DataFrame({"value": texts}))
    count = kafka.scan(name).count()
    assert caught.value.written == count
    assert caught.value.offsets == ({0: (0, count)} if count else {})
    if count:
        assert f"{count} rows were acknowledged before" in str(caught.value)


def test_what_breaks_a_table_says_what_was_acknowledged(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    schema = pa.schema([("n", pa.int64())])

    def batches() -> Any:
        yield pa.record_batch([pa.array(range(100_000))], schema=schema)
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke") as caught:
        kafka.write(name, pa.RecordBatchReader.from_batches(schema, batches()))
    error: Any = caught.value
    assert error.written == kafka.scan(name).count()
    assert error.offsets == ({0: (0, error.written)} if error.written else {})

    class Broken:
        def update(self, count: int) -> None:
            raise ZeroDivisionError(count)

        def close(self) -> None:
            pass

    with pytest.raises(ZeroDivisionError) as progress:
        kafka.write(name, pl.DataFrame({"n": [1]}), progress=Broken())
    other: Any = progress.value
    assert (other.written, other.offsets) == (0, {})


@pytest.mark.parametrize(
    "raised", [KeyError("a"), ottla.ConfigError("mine"), KeyboardInterrupt(), SystemExit(3)]
)
@pytest.mark.parametrize("count", [0, 12])
def test_what_a_generator_raises_is_raised(
    kafka: ottla.Client, name: str, raised: BaseException, count: int
) -> None:
    kafka.create_topic(name, partitions=1)
    schema = pa.schema([("n", pa.int64())])

    def batches() -> Any:
        for _ in range(count):
            yield pa.record_batch([pa.array(range(50_000))], schema=schema)
        raise raised

    with pytest.raises(type(raised)) as caught:
        kafka.write(name, pa.RecordBatchReader.from_batches(schema, batches()))
    assert caught.value is raised
    error: Any = raised
    assert error.written == kafka.scan(name).count()
    assert (count > 0) == (error.written > 0)
    told = f"{error.written:,} rows were acknowledged before"
    texts = [str(error), *getattr(error, "__notes__", [told])]
    assert count == 0 or any(told in text for text in texts)


def test_every_failure_says_how_much_was_written(kafka: ottla.Client, name: str) -> None:
    class Broken:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise ZeroDivisionError("no stream")

    for data in (Broken(), [1], pl.DataFrame({"n": [1]}), pd.DataFrame({"n": [1, "a"]})):
        with pytest.raises(Exception, match=r".") as caught:
            kafka.write(name, data, key="absent")
        error: Any = caught.value
        assert (error.written, error.offsets) == (0, {})
