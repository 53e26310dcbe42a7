"""Waiting in asyncio: for native work, and for methods that block."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from typing_extensions import Self

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
    """Return a method that does the same without holding up the event loop."""

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
        "The arguments and the result are the same. Cancelling only stops the waiting: the call\n"
        "goes on in a thread to its end, and what a cancelled ``write`` was given may still be\n"
        "written. Use ``timeout=`` to limit it."
    )
    return waiting


class ThreadIterator(Generic[R]):
    """An iterator that is asked in a thread, so that the event loop is not held up.

    A wait that was cancelled takes nothing away: the item that it was for is the next one that is
    handed out. An asynchronous generator would be closed by it, and seem to be at its end.

    Parameters
    ----------
    items : iterator
        The iterator; ``None`` is none of its items.
    """

    def __init__(self, items: Iterator[R]) -> None:
        self._items = items
        #: What is being fetched, or was fetched and not handed out.
        self._pending: asyncio.Future[R | None] | None = None
        self._awaited = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        import asyncio

        if self._awaited:
            raise RuntimeError("another task is waiting for the next item")
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.run_in_executor(None, next, self._items, None)
        pending, self._awaited = self._pending, True
        try:
            item = await asyncio.shield(pending)
        except asyncio.CancelledError:
            if pending.cancelled():
                self._pending = None
            raise
        except BaseException:
            self._pending = None
            raise
        finally:
            self._awaited = False
        self._pending = None
        if item is None:
            raise StopAsyncIteration
        return item
