"""The settings of a client: from what users write to the names and texts of Kafka."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ottla.errors import ConfigError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["client_settings", "setting_text"]

#: The settings that start what a later version will have.
_LATER = ("transactional_id", "schema_registry_url")


def client_settings(
    client_id: str | None, config: Mapping[str, object] | None, options: Mapping[str, object]
) -> dict[str, str]:
    """Return the settings of a client by Kafka's names, as texts."""
    settings: dict[str, str] = {}
    for name in _LATER:
        if options.get(name) is not None:
            raise NotSupportedError(f"{name} is not supported by this version of ottla")
    if options.get("group_id") is not None:
        raise ConfigError(
            "group_id is an argument of consumer(topics, group_id=…), not of a client"
        )
    if client_id is not None:
        settings["client.id"] = client_id
    for name, value in options.items():
        if value is not None:
            settings[name.replace("_", ".")] = setting_text(value)
    for name, value in (config or {}).items():
        settings[name] = setting_text(value)
    return settings


def setting_text(value: object) -> str:
    """Write a setting as Kafka reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return str(value // timedelta(milliseconds=1))
    return str(value)
