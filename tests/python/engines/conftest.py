"""Ray, Spark and DuckDB's Delta are tested where they are: ``make engines`` installs them."""

from __future__ import annotations

import importlib.util
import os
import sys

# Spark would start its workers with whichever python3 comes first in the path.
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

collect_ignore = [
    file
    for package, file in {
        "ray": "test_ray.py",
        "pyspark": "test_spark.py",
        "duckdb_extension_delta": "test_duckdb_delta.py",
    }.items()
    if not os.environ.get("OTTLA_ENGINES") and importlib.util.find_spec(package) is None
]
