"""Groups: the arguments of a member, converted from what users pass to what the engine takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ottla._names import topic_name
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["group_options", "is_pattern", "refuse_group_options"]

_AUTO_COMMIT_MS = 5_000

#: The flags of a Python pattern, as the engine's patterns write them.
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


def _is_time(name: str) -> bool:
    return name.endswith("_ms")


def _is_of_groups(name: str) -> bool:
    """Whether an argument only means something in a group."""
    named = name.startswith("group_") or name == "partition_assignment_strategy"
    return named or _is_time(name)


def refuse_group_options(options: Mapping[str, Any]) -> None:
    """Refuse arguments that would have no effect without a group."""
    given = [name for name, value in options.items() if _is_of_groups(name) and value is not None]
    if options["auto_commit"]:
        given.append("auto_commit")
    if given:
        raise ConfigError(f"{given[0]}= only works in a group: pass group_id= as well")


def is_pattern(topics: Any) -> bool:
    """Return whether topics are given by a pattern instead of by name."""
    return isinstance(topics, re.Pattern) or (isinstance(topics, str) and topics.startswith("^"))


def _pattern(topics: Any) -> str | None:
    if isinstance(topics, re.Pattern):
        if not isinstance(topics.pattern, str):
            raise ConfigError("a pattern of topics must be text, not bytes")
        flags = "".join(letter for flag, letter in _FLAGS.items() if topics.flags & flag)
        return f"(?{flags}){topics.pattern}" if flags else topics.pattern
    return topics if is_pattern(topics) else None


def _names(topics: Any) -> list[str]:
    if not isinstance(topics, Iterable):
        return [topic_name(topics)]
    names = []
    for topic in [topics] if isinstance(topics, str) else topics:
        try:
            name = topic_name(topic)
        except TypeError:
            name = None
        if name is None or is_pattern(name):
            raise ConfigError(
                f'{topic!r} is not the name of a topic; a pattern must stand alone, and "^(a|b).*" '
                "combines several into one"
            )
        names.append(name)
    return names


def milliseconds(value: Any, name: str) -> int | None:
    """Read a time in milliseconds."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value // timedelta(milliseconds=1)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a number of milliseconds or a timedelta, not {value!r}")
    number = int(value.__index__())
    if number <= 0:
        raise ConfigError(f"{name}={number} must be above 0")
    return number


def group_options(topics: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a member that the engine takes in another form."""
    group_id = options["group_id"]
    if not isinstance(group_id, str):
        raise TypeError(f"the name of a group must be a str, not {type(group_id).__name__}")
    pattern = _pattern(topics)
    interval = milliseconds(options["auto_commit_interval_ms"], "auto_commit_interval_ms")
    if interval is not None and not options["auto_commit"]:
        raise ConfigError("auto_commit_interval_ms= only works with auto_commit=True")
    assignors = options["partition_assignment_strategy"]
    if isinstance(assignors, str):
        assignors = [one.strip() for one in assignors.split(",")]
    protocol = options["group_protocol"]
    times = {name: milliseconds(value, name) for name, value in options.items() if _is_time(name)}
    if options["auto_commit"]:
        times["auto_commit_interval_ms"] = interval or _AUTO_COMMIT_MS
    return {
        "topics": [] if pattern is not None else _names(topics),
        "pattern": pattern,
        "group_protocol": "classic" if protocol is None else str(protocol).lower(),
        "partition_assignment_strategy": None if assignors is None else list(assignors),
        "resumes": options["resume"] is not None,
        **times,
    }
