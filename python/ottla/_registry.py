"""Schema registries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from ottla.errors import ConfigError

__all__ = ["SchemaRegistry"]

#: The settings, as Confluent's clients name them.
_SETTINGS = {
    "url": "url",
    "basic.auth.user.info": "user",
    "bearer.auth.token": "token",
    "ssl.ca.location": "ca",
}


class SchemaRegistry:
    """A schema registry: Confluent's, Karapace, Apicurio, or any other with the same interface.

    It connects on first use and caches the answers: a schema never changes under its id, so each is
    fetched once; the latest schema of a subject is fetched again after a minute. Formats with the
    same object, or the same URL, share the cache.

    Parameters
    ----------
    url : str
        ``http://…`` or ``https://…``; several of one registry, separated by commas, are tried in
        turn. A user and a password may be part of it.
    username, password : str, optional
        The credentials for HTTP basic authentication: a user, or an API key with its secret.
    token : str, optional
        The token for HTTP bearer authentication, instead of those.
    ca : str or pathlib.Path, optional
        A PEM file of the certificates to trust, instead of the public authorities.
    timeout : float or datetime.timedelta, default 10
        How long one call may take, in seconds. Within this time, a call that gets no answer is
        attempted up to four times.

    Raises
    ------
    ConfigError
        When the URL or the certificates are not valid.

    Examples
    --------
    >>> import ottla
    >>> ottla.SchemaRegistry("https://registry.example", username="key", password="secret")
    ottla.SchemaRegistry('https://registry.example')

    >>> ottla.SchemaRegistry("https://one.example,https://two.example").urls
    ['https://one.example', 'https://two.example']
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        ca: str | Path | None = None,
        timeout: float | timedelta = 10.0,
    ) -> None:
        from ottla._ottla import SchemaRegistry as Native

        if (username is None) != (password is None):
            raise ConfigError("a registry needs both a username and a password, or neither")
        user = None if username is None or password is None else (username, password)
        pem = None if ca is None else Path(ca).read_bytes()
        wait = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
        self._arguments = (url, user, token, pem, wait)
        self._native = Native(*self._arguments)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._arguments

    def __setstate__(self, arguments: tuple[Any, ...]) -> None:
        from ottla._ottla import SchemaRegistry as Native

        self._arguments = arguments
        self._native = Native(*arguments)

    @property
    def urls(self) -> list[str]:
        """The URLs, without user and password."""
        return self._native.urls

    def __repr__(self) -> str:
        return f"ottla.SchemaRegistry({','.join(self.urls)!r})"


@lru_cache(maxsize=64)
def _shared(url: str) -> SchemaRegistry:
    return SchemaRegistry(url)


def as_registry(registry: SchemaRegistry | Mapping[str, Any] | str | None) -> SchemaRegistry | None:
    """Accept a registry, its URL, or the settings of confluent-kafka's registry client."""
    if registry is None or isinstance(registry, SchemaRegistry):
        return registry
    if isinstance(registry, str):
        return _shared(registry)
    if not isinstance(registry, Mapping):
        raise TypeError(
            f"registry= must be a URL or an ottla.SchemaRegistry, not {type(registry).__name__}"
        )
    unknown = sorted(registry.keys() - _SETTINGS.keys())
    if unknown or "url" not in registry:
        raise ConfigError(
            f"registry= has {unknown or 'no url'}; of confluent-kafka's settings, only "
            f"{', '.join(_SETTINGS)} are supported: use an ottla.SchemaRegistry for others"
        )
    given = {_SETTINGS[name]: value for name, value in registry.items()}
    user = given.pop("user", None)
    if user is not None:
        given["username"], _, given["password"] = str(user).partition(":")
    return SchemaRegistry(**given)
