"""Names of topics and numbers of partitions, with clear errors for anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["partition_numbers", "topic_name", "topic_names"]


def topic_name(topic: Any) -> str:
    """Return the name of a topic, or refuse what cannot be one."""
    if isinstance(topic, str):
        return topic
    name = getattr(topic, "name", None)
    if type(topic).__name__ == "Topic" and isinstance(name, str):
        return name
    raise TypeError(f"the name of a topic must be a str, not {type(topic).__name__}")


def topic_names(topics: Any) -> list[str]:
    """Return the names of one topic or several."""
    if isinstance(topics, (str, bytes)) or not isinstance(topics, Iterable):
        return [topic_name(topics)]
    return [topic_name(one) for one in topics]


def partition_numbers(partitions: Any, argument: str = "partitions=") -> list[int]:
    """Return the numbers of partitions."""
    if isinstance(partitions, (str, bytes, Mapping)) or not isinstance(partitions, Iterable):
        raise TypeError(
            f"{argument} takes the numbers of partitions, for example [0, 1], not {partitions!r}"
        )
    numbers = []
    for one in partitions:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise TypeError(f"{argument} takes the numbers of partitions, and {one!r} is not one")
        numbers.append(int(one.__index__()))
    return numbers
