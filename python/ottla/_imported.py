"""Packages that the caller has imported; this one imports none of them for itself."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["imported"]


def imported(name: str) -> Any:
    """Return the package of this name; ``None`` when it is not imported, or not to its end yet.

    Nobody can have an object of a package that another thread is about to import.
    """
    module = sys.modules.get(name)
    is_beginning = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if is_beginning else module
