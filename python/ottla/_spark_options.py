"""The options of the Spark source: from texts, as Spark hands them over, to what ottla takes.

They are named and typed as the arguments of ``client.scan`` and ``client.write``. Settings of the
client have Kafka's names behind ``kafka.``, as in Spark's own Kafka source. What is not known is
refused.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ottla import formats
from ottla._bounds import is_by_topic
from ottla._engines import part_count
from ottla._format import is_fixed
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ottla._format import Format

__all__ = ["Options", "options_of"]

_SETTING = "kafka."
_BOOTSTRAP = "kafka.bootstrap.servers"


def _text(text: str) -> str:
    return text


def _bound(text: str) -> Any:
    """Read a bound: a word or a time, or offsets as JSON."""
    return json.loads(text) if text.lstrip().startswith("{") else text


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _column_or_number(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _columns_by_header(text: str) -> Any:
    """Read the column of all headers, or the columns of single ones as JSON."""
    return json.loads(text) if text.lstrip().startswith("{") else text


_FORMAT: dict[str, Callable[[str], Any]] = {
    "value": _text,
    "value_schema": _text,
    "registry": _text,
}
_BOTH: dict[str, Callable[[str], Any]] = {"topic": _text, "timeout": float, **_FORMAT}
_SCAN: dict[str, Callable[[str], Any]] = {
    **_BOTH,
    "start": _bound,
    "partitions": _numbers,
    "columns": _names,
    "isolation_level": _text,
    "on_error": _text,
    "on_data_loss": _text,
    "batch_rows": int,
    "threads": int,
    "parts": int,
}

#: What each use of the source understands.
_KNOWN: dict[str, dict[str, Callable[[str], Any]]] = {
    "read": {**_SCAN, "end": _bound},
    "readStream": {**_SCAN, "max_offsets_per_trigger": int},
    "write": {
        **_BOTH,
        "key": _text,
        "partition": _column_or_number,
        "timestamp": _text,
        "headers": _columns_by_header,
        "acks": _text,
        "compression_type": _text,
    },
}
#: Before a reader is asked for, nobody says whether it is a stream's.
_KNOWN["load"] = _KNOWN["read"] | _KNOWN["readStream"]
_KNOWN["writeStream"] = _KNOWN["write"]
#: Options of Spark itself, which it hands to every sink of a stream as well.
_OF_SPARK = {"writeStream": {"checkpointlocation"}}


@dataclass(frozen=True)
class Options:
    """What the options of a source say.

    Parameters
    ----------
    settings : dict of str to str
        The settings of the client.
    topic : str
        The topic.
    value : Format, optional
        The format of values.
    parts : int, optional
        How many parts there shall be at most.
    max_offsets : int, optional
        The most offsets of a micro-batch.
    others : dict of str to object
        Arguments of ``client.scan`` or ``client.write``.
    """

    settings: dict[str, str]
    topic: str
    value: Format | None
    parts: int | None
    max_offsets: int | None
    others: dict[str, Any]

    @property
    def infers(self) -> bool:
        """Whether the columns depend on the values that are read."""
        value = self.value
        return value is not None and not is_fixed(value) and value.registry is None


def options_of(given: Mapping[str, str], use: str) -> Options:
    """Return what options say, or refuse them.

    Parameters
    ----------
    given : mapping of str to str
        The options as Spark hands them over.
    use : {"load", "read", "readStream", "write", "writeStream"}
        What the source is used for.
    """
    known, settings, found = _KNOWN[use], {}, dict[str, Any]()
    for name, text in given.items():
        lower = name.lower()
        if lower.startswith(_SETTING):
            settings[lower.removeprefix(_SETTING)] = text
        elif lower in known:
            try:
                found[lower] = known[lower](text)
            except ValueError as error:
                raise ConfigError(f"option {lower}={text!r}: {error}") from None
        elif lower not in _OF_SPARK.get(use, set()):
            raise _unknown(lower, use, known)
    if "bootstrap.servers" not in settings:
        raise ConfigError(f'name the cluster: .option("{_BOOTSTRAP}", "host:9092")')
    if "topic" not in found:
        raise ConfigError('name the topic: .option("topic", "orders")')
    form = {name: found.pop(name, None) for name in _FORMAT}
    max_offsets = found.pop("max_offsets_per_trigger", None)
    if max_offsets is not None and max_offsets < 1:
        raise ConfigError(f"option max_offsets_per_trigger={max_offsets}: it is at least 1")
    if use == "readStream":
        found = _started(found.get("start")) | found
    return Options(
        settings=settings,
        topic=found.pop("topic"),
        value=_format(form["value"], form["value_schema"], form["registry"]),
        parts=part_count(found.pop("parts", None)),
        max_offsets=max_offsets,
        others=found,
    )


def _started(start: Any) -> dict[str, list[int]]:
    """Return which partitions offsets to start at select, as an option, if they select any.

    Of a stream these have to be kept: in its checkpoint, partitions without an offset are those
    that were added later.
    """
    if not start or not isinstance(start, dict) or is_by_topic(start):
        return {}
    try:
        return {"partitions": sorted(int(partition) for partition in start)}
    except ValueError as error:
        raise ConfigError(f"option start={start}: {error}") from None


def _unknown(name: str, use: str, known: Mapping[str, Any]) -> ConfigError:
    if name == "path":
        return ConfigError('a topic is no path: .option("topic", "orders"), and load() without one')
    elsewhere = [other for other in ("read", "readStream", "write") if name in _KNOWN[other]]
    if elsewhere:
        return ConfigError(f"option {name} is one of {' and '.join(elsewhere)}, not of {use}")
    near = difflib.get_close_matches(name, [*known, _BOOTSTRAP], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigError(f"option {name} is not known{hint} There are {', '.join(sorted(known))}")


def _format(value: str | None, schema: str | None, registry: str | None) -> Format | None:
    """Return the format that three options name."""
    if value == "avro":
        return formats.avro(schema, registry=registry)
    for name, text in (("value_schema", schema), ("registry", registry)):
        if text is not None:
            raise ConfigError(f'option {name} belongs to .option("value", "avro")')
    if value is None or value in {"raw", "text", "json"}:
        return formats.as_format(value)
    if value.lstrip().startswith("{"):
        try:
            return formats.json(json.loads(value))
        except json.JSONDecodeError as error:
            raise ConfigError(f"option value={value!r} is not JSON: {error}") from None
    raise ConfigError(
        f"option value={value!r}: use raw, text, json or avro, or name the columns of JSON values "
        'and their types, as JSON: {"id": "int64", "name": "utf8"}'
    )
