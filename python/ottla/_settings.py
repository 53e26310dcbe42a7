"""The settings of a client, converted from what users pass to Kafka's names and texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from ottla.errors import ConfigError, NotSupportedError

__all__ = ["client_settings", "config_items", "servers_text", "setting_text", "topic_settings"]

#: Prefixes of settings for features of a later version.
_LATER_PREFIXES = ("sasl.", "ssl.")


def client_settings(
    client_id: str | None, config: Mapping[str, object] | None, options: Mapping[str, object]
) -> dict[str, str]:
    """Return the settings of a client by Kafka's names, as texts."""
    settings: dict[str, str] = {}
    if options.get("group_id") is not None:
        raise ConfigError(
            "group_id is an argument of consumer(topics, group_id=…), not of a client"
        )
    if client_id is not None:
        settings["client.id"] = client_id
    for name, value in options.items():
        if value is not None:
            settings[name.replace("_", ".")] = setting_text(value)
    for name, value in config_items(config):
        settings[name] = setting_text(value)
    for name in settings:
        if name == "transactional.id":
            raise ConfigError(
                "transactional.id is not a setting of a client: it belongs to one producer, which "
                "client.transactional(id) makes"
            )
        if name.startswith(_LATER_PREFIXES):
            raise NotSupportedError(f"{name} is not supported yet")
        if name.startswith("schema.registry."):
            raise ConfigError(
                f"{name} is not a setting of a client: pass registry= to the format, for example "
                'value=ottla.avro(registry=ottla.SchemaRegistry("http://localhost:8081"))'
            )
    return settings


def config_items(config: Mapping[str, object] | None) -> list[tuple[str, object]]:
    """Return the names and values of settings."""
    if config is None:
        return []
    if not isinstance(config, Mapping):
        raise TypeError(
            f"config= must be a mapping of names to values, not {type(config).__name__}"
        )
    return list(config.items())


def topic_settings(config: Mapping[str, object] | None) -> dict[str, object]:
    """Return the settings of a topic; ``retention_ms`` means ``retention.ms`` in every method."""
    return {name.replace("_", "."): value for name, value in config_items(config)}


def servers_text(servers: str | Sequence[str]) -> str:
    """Format addresses as Kafka does."""
    listed = [servers] if isinstance(servers, str) else servers
    if not isinstance(listed, Iterable) or not all(isinstance(one, str) for one in listed):
        raise TypeError(
            f"bootstrap_servers must be 'host:port', or a sequence of such strings, not {servers!r}"
        )
    return ",".join(listed)


def setting_text(value: object) -> str:
    """Format a setting as Kafka reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return str(value // timedelta(milliseconds=1))
    return str(value)
