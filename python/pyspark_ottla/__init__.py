"""Makes ``spark.read.format("ottla")`` work without a call: Spark looks for packages by this name.

Spark imports every package whose name begins with ``pyspark_`` when a session first meets a format
that is written in Python, and registers its ``DefaultSource``. An import that fails would take the
formats of all other packages with it, so where something is missing there is no ``DefaultSource``;
``import ottla.spark`` says what.
"""

from __future__ import annotations

try:
    from ottla.spark import OttlaDataSource as DefaultSource
except ImportError:  # Spark before 4.2, or none
    __all__ = []
else:
    __all__ = ["DefaultSource"]
