"""Names of topics and numbers of partitions, with clear errors for anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ottla.errors import ConfigError

__all__ = ["partition_number", "partition_numbers", "topic_name", "topic_names"]


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
    return [partition_number(one, argument) for one in partitions]


def partition_number(number: Any, argument: str = "partition=") -> int:
    """Return the number of a partition."""
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{argument} takes the numbers of partitions, and {number!r} is not one")
    found = int(number.__index__())
    if not -(2**31) <= found < 2**31:
        raise ConfigError(
            f"{argument} has {found}, and partitions are numbered from 0 to {2**31 - 1}"
        )
    return found
