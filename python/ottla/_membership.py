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

_TIMES = (
    "session_timeout_ms",
    "heartbeat_interval_ms",
    "max_poll_interval_ms",
    "rebalance_timeout_ms",
)
_WORDS = ("group_instance_id", "group_remote_assignor")
#: The arguments that only mean something in a group.
_OF_GROUPS = (
    *_TIMES,
    *_WORDS,
    "auto_commit_interval_ms",
    "group_protocol",
    "partition_assignment_strategy",
)
_AUTO_COMMIT_MS = 5_000

#: The flags of a Python pattern, as the engine's patterns write them.
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


def refuse_group_options(options: Mapping[str, Any]) -> None:
    """Refuse arguments that would have no effect without a group."""
    given = [name for name in _OF_GROUPS if options.get(name) is not None]
    if options.get("auto_commit"):
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
        topic_name(topics)
    names = [topics] if isinstance(topics, str) else list(topics)
    for name in names:
        if not isinstance(name, str) or is_pattern(name):
            raise ConfigError(
                f'{name!r} is not the name of a topic; a pattern must stand alone, and "^(a|b).*" '
                "combines several into one"
            )
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
    """Return the arguments of a member, as the engine takes them."""
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
    return {
        "topics": [] if pattern is not None else _names(topics),
        "pattern": pattern,
        "group_id": group_id,
        "group_protocol": "classic" if protocol is None else str(protocol).lower(),
        "partition_assignment_strategy": None if assignors is None else list(assignors),
        "auto_offset_reset": options["auto_offset_reset"],
        "resumes": options["resumes"],
        "auto_commit_interval_ms": (interval or _AUTO_COMMIT_MS)
        if options["auto_commit"]
        else None,
        **{name: options[name] for name in _WORDS},
        **{name: milliseconds(options[name], name) for name in _TIMES},
    }
