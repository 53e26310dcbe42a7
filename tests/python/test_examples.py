"""Each public function, method and property has an example; ``make readme-test`` runs them.

It is in the docstring of the method itself or of its class.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
from typing import TYPE_CHECKING

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator


def used(documented: object) -> set[str]:
    """Return the names that the examples of a docstring use."""
    names: set[str] = set()
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    for example in doctest.DocTestParser().get_examples(text):
        for node in ast.walk(ast.parse(example.source)):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Name):
                names.add(node.id)
    return names


def public() -> Iterator[tuple[str, str, list[object]]]:
    """Yield what is public: how it is called, its own name, and what may have the example."""
    for name in ottla.__all__:
        thing = getattr(ottla, name)
        if inspect.ismodule(thing):
            for one in thing.__all__:
                yield f"{name}.{one}", one, [getattr(thing, one)]
        elif inspect.isclass(thing):
            if issubclass(thing, BaseException):
                continue
            # A field of a dataclass is a parameter of it, and documented as such.
            fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
            hidden = {field.name for field in fields}
            for one in dir(thing):
                if not one.startswith("_") and one not in hidden:
                    yield f"{name}.{one}", one, [inspect.getattr_static(thing, one), thing]
        elif callable(thing):
            yield name, name, [thing]


def test_all_that_is_public_has_an_example() -> None:
    found = list(public())
    assert len(found) > 150
    missing = [
        title
        for title, name, documented in found
        if not any(name in used(one) for one in documented)
    ]
    assert missing == []
