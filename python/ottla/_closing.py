"""What may stand in a ``with`` block: it closes at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["AsyncClosing", "Closing"]


class Closing:
    """Closes at the end of a ``with`` block, whatever ended it."""

    def close(self) -> None:
        """Close; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClosing(Closing):
    """Also at the end of an ``async with`` block, without holding up the event loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio
        from functools import partial

        closing = partial(self.__exit__, kind, error, trace)
        await asyncio.get_running_loop().run_in_executor(None, closing)
