"""Which columns of a scan are those of its records, and which those of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KAFKA", "fields_of", "kafka_struct"]

#: The columns of each record.
KAFKA = ("topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers")


def fields_of(schema: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a scan that are those of its values, with their types."""
    struct = kafka_struct(schema)
    kafka = set(KAFKA) if struct is None else {struct}
    return {name: kind for name, kind in schema.items() if name not in kafka}


def kafka_struct(schema: Mapping[str, str]) -> str | None:
    """Return the column of a scan that has those of Kafka, where values have one of their names."""
    # If a member of the values has this name, too, the struct has more underscores.
    found = [
        name
        for name, kind in schema.items()
        if name.startswith("_") and name.lstrip("_") == "kafka" and kind.startswith("struct<topic")
    ]
    return max(found, key=len, default=None)
