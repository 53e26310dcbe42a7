"""Waiting in asyncio: for native work, and for methods that block."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from ottla._ottla import Pending

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")


def wait(pending: Pending) -> Generator[Any, None, Any]:
    """Wait for ``pending`` in the running event loop, as ``__await__`` does."""
    import asyncio

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


def in_thread(
    method: Callable[Concatenate[C, P], R],
) -> Callable[Concatenate[C, P], Coroutine[Any, Any, R]]:
    """Return a method that does the same without holding up the event loop.

    Whoever cancels it no longer waits; what it does goes on, as a request that was sent does.
    """

    @functools.wraps(method)
    async def waiting(itself: C, /, *arguments: P.args, **options: P.kwargs) -> R:
        import asyncio

        call = functools.partial(method, itself, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(None, call)

    name = method.__name__
    waiting.__name__ = f"{name}_async"
    waiting.__qualname__ = f"{method.__qualname__}_async"
    waiting.__doc__ = (
        f"Do what :meth:`{name}` does, without holding up the event loop.\n\n"
        "The arguments and the result are the same."
    )
    return waiting
