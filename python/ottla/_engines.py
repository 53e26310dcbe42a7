"""Scans for engines that work on many machines: the parts of a scan as Dask's and Ray's pieces.

Each part becomes one piece, read as a whole by whichever worker gets it, which connects to the
cluster by itself. A piece is the same rows whenever it is read, in the same order and in one chunk:
an engine that lost a worker reads it again, and may count on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla._arguments import whole_number
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Splitting", "count_of_parts", "part_count"]

#: About how many offsets a part has unless the user says how many parts there are.
_PART_OFFSETS = 200_000


def count_of_parts(offsets: Mapping[int, tuple[int, int]]) -> int:
    """Return how many parts a scan has by default.

    Parameters
    ----------
    offsets : mapping of int to (int, int)
        The bounds by partition.
    """
    sizes = [end - start for start, end in offsets.values() if end > start]
    return max(1, len(sizes), -(-sum(sizes) // _PART_OFFSETS))


def part_count(parts: Any) -> int | None:
    """Return how many parts the user wants; ``None`` for as many as there are by default."""
    if parts is None:
        return None
    number = whole_number("parts", parts)
    if number < 1:
        raise ConfigError(f"parts={parts}: a scan has at least one part")
    return number


def _decoded(schema: Any) -> Any:
    """Return a schema without dictionaries, which differ from piece to piece."""
    pyarrow = _frames.require("pyarrow", "reading a scan in parts")
    fields = [
        field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pyarrow.schema(fields)


def _schema(scan: Any) -> Any:
    """Return the Arrow schema of the pieces of a scan."""
    return _decoded(scan.head(0).to_pyarrow().schema)


def _table(part: Any) -> Any:
    """Read a part, all of it, in the form that is the same each time."""
    table = part.to_pyarrow()
    return table.cast(_decoded(table.schema)).combine_chunks()


def _pandas(table: Any) -> Any:
    # numpy's types have no null: integers that may be null would become floats, and lose digits.
    pandas = _frames.require("pandas", "to_dask()")
    return table.to_pandas(types_mapper=pandas.ArrowDtype)


def _read_pandas(part: Any) -> Any:
    return _pandas(_table(part))


def dask_frame(scan: Any, parts: list[Any]) -> Any:
    """Return a Dask dataframe with the rows of a scan, a partition for each part."""
    dask = _frames.require("dask.dataframe", "to_dask()")
    meta = _pandas(_schema(scan).empty_table())
    return dask.from_map(_read_pandas, parts, meta=meta, label="ottla-scan")


def ray_dataset(scan: Any, parts: list[Any]) -> Any:
    """Return a Ray dataset with the rows of a scan, a block for each part."""
    _frames.require("ray.data", "to_ray()")
    from ray.data import Datasource, ReadTask, read_datasource
    from ray.data.block import BlockMetadata

    schema = _schema(scan)

    class Ottla(Datasource):  # type: ignore[misc]
        """The parts of a scan, as Ray Data asks for them."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[Any]:
            # The scan has been cut already; each task is one of its parts.
            del parallelism, data_context
            return [_read_task(part, schema, per_task_row_limit) for part in parts]

    def _read_task(part: Any, schema: Any, limit: int | None) -> Any:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)

        def read() -> Iterable[Any]:
            # One block, not one for each batch: when a worker is lost, Ray reads again and takes
            # the blocks that it lacks by their numbers, so they must be the same ones.
            yield _table(part)

        return ReadTask(read, metadata, schema=schema, per_task_row_limit=limit)

    return read_datasource(Ottla(), override_num_blocks=len(parts))


class Splitting:
    """What is read in parts by engines that work on many machines."""

    if TYPE_CHECKING:

        @property
        def offsets(self) -> dict[int, tuple[int, int]]: ...

        def split(self, n: int) -> list[Any]: ...

    def to_dask(self, parts: int | None = None) -> Any:
        """Return a ``dask.dataframe.DataFrame`` of all rows, which Dask's workers read in parallel.

        Its partitions are the parts of :meth:`split`. The columns have the pandas types of Arrow
        (``pandas.ArrowDtype``), so that a null is a null and integers keep all digits. The parts
        are read when Dask computes; one that cannot be read in full is an error then. This call
        reads the first values where JSON is inferred, and the rows up to the limit with
        ``max_rows=``. Workers connect to the cluster by the addresses of this scan's client.

        Parameters
        ----------
        parts : int, optional
            How many parts to make at most; by default one for about 200,000 offsets, and no fewer
            than there are partitions that are not empty.

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     for amount in (3, 4, 5):
        ...         _ = kafka.send("orders", {"amount": amount})
        ...     orders = kafka.scan("orders", value=ottla.json()).to_dask(parts=2)
        ...     orders.npartitions, int(orders["amount"].sum().compute())
        (2, 12)
        """
        return dask_frame(self, self._parts(parts))

    def to_ray(self, parts: int | None = None) -> Any:
        """Return a ``ray.data.Dataset`` of all rows, which Ray's workers read in parallel.

        Its blocks are Arrow tables, one for each part of :meth:`split`; a part is in memory at
        once. It is read when Ray needs it; one that cannot be read in full is an error then. This
        call reads the first values where JSON is inferred, and the rows up to the limit with
        ``max_rows=``. Workers connect to the cluster by the addresses of this scan's client. The
        manual has an example: ``src/manual/engines.md``.

        Parameters
        ----------
        parts : int, optional
            How many parts to make at most; by default one for about 200,000 offsets, and no fewer
            than there are partitions that are not empty.
        """
        return ray_dataset(self, self._parts(parts))

    def _parts(self, parts: int | None) -> list[Any]:
        number = part_count(parts)
        return self.split(count_of_parts(self.offsets) if number is None else number)
