"""Each public function, method and property has an example; ``make readme-test`` runs them.

It is in the docstring of the method itself or of its class, or, for what needs an engine, in the
manual's page about them, which ``make engines`` runs.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator


#: What needs an engine that the tests' environment does not have.
WITH_ENGINES = {"Scan.to_ray"}
ENGINES = Path(__file__).parents[2] / "src" / "manual" / "engines.md"


def names_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def used(documented: object) -> set[str]:
    """Return the names that the examples of a docstring use."""
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    examples = doctest.DocTestParser().get_examples(text)
    return {name for example in examples for name in names_in(example.source)}


def used_with_engines() -> set[str]:
    """Return the names that the manual's page about engines uses."""
    blocks = re.findall(r"^```python\n(.*?)^```", ENGINES.read_text(), re.MULTILINE | re.DOTALL)
    return {name for block in blocks for name in names_in(block)}


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
    with_engines = used_with_engines()
    missing = [
        title
        for title, name, documented in found
        if not any(name in used(one) for one in documented)
        and not (title in WITH_ENGINES and name in with_engines)
    ]
    assert missing == []
