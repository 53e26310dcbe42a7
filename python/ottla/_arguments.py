"""Keyword arguments that are written down once: in the signature of the method that documents them.

What else needs their names, their defaults or their types derives them from there.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "defaults",
    "keywords",
    "one_class",
    "same_as",
    "same_for_topic",
    "takes_also",
    "takes_items",
    "whole_number",
]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")
C = TypeVar("C", bound=type)


def defaults(method: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword-only arguments of a method with their defaults."""
    # All keyword-only arguments of this package have one.
    return dict(getattr(method, "__kwdefaults__", None) or {})


def keywords(method: Callable[..., Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword-only arguments of a call, from the local variables that it began with."""
    return {name: variables[name] for name in defaults(method)}


def same_as(
    method: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Show, of a method that passes its arguments on, the arguments of the one that takes them."""

    def shown(passing: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        return _show(passing, inspect.signature(method))

    return shown


def same_for_topic(
    method: Callable[Concatenate[Any, str, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """As :func:`same_as`, where the topic, the first argument, is known."""

    def shown(passing: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        itself, _topic, *others = inspect.signature(method).parameters.values()
        return _show(passing, inspect.signature(method).replace(parameters=[itself, *others]))

    return shown


def takes_also(method: Callable[..., Any]) -> Callable[[F], F]:
    """Show, of a function with ``**options``, the keyword-only arguments of a method as well."""

    def shown(function: F) -> F:
        own = inspect.signature(function)
        *first, options = own.parameters.values()
        added = [
            one
            for one in inspect.signature(method).parameters.values()
            if one.kind is one.KEYWORD_ONLY
        ]
        return _show(function, own.replace(parameters=[*first, *added, options]))

    return shown


def takes_items(items: type) -> Callable[[F], F]:
    """Show, of a function with ``**options``, the items of a ``TypedDict`` instead of these."""

    def shown(function: F) -> F:
        own = inspect.signature(function)
        *first, _options = own.parameters.values()
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in items.__annotations__
        ]
        return _show(function, own.replace(parameters=[*first, *added]))

    return shown


def one_class(whole: C) -> C:
    """Let the methods of the parts of a class say its name: users know no other.

    Python says it when it refuses an argument.
    """
    for part in whole.__mro__[1:-1]:
        for name, method in vars(part).items():
            if inspect.isfunction(method):
                method.__qualname__ = f"{whole.__qualname__}.{name}"
    return whole


def whole_number(name: str, value: Any) -> int:
    """Return an argument that is a whole number; a bool is none, though Python counts with it."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}= takes a whole number, not {value!r}")
    return int(value.__index__())


def _show(function: F, signature: inspect.Signature) -> F:
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
