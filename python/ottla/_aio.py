"""Waiting for native work in asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from ottla._ottla import Pending


def wait(pending: Pending) -> Generator[Any, None, Any]:
    """Wait for ``pending`` in the running event loop, as ``__await__`` does."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def finished(_pending: Pending) -> None:
        # The loop may have been closed while the work was running.
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    pending.add_done_callback(finished)
    yield from done.__await__()
    return pending.result(0)
