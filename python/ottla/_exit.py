"""At the exit of the interpreter: flush what was not sent, stop the brokers, end all waits."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Any

from ottla._ottla import finish

#: How long the exit waits for records to be acknowledged, in seconds.
FLUSH_SECONDS = 30.0

_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_brokers: weakref.WeakSet[Any] = weakref.WeakSet()
_process = os.getpid()


def register_client(client: Any) -> None:
    """Close a client when the interpreter exits, if it still exists."""
    _clients.add(client)


def register_broker(broker: Any) -> None:
    """Close a broker when the interpreter exits, if it still exists; after all clients."""
    _brokers.add(broker)


def _forked() -> None:
    # The parent closes what the parent opened.
    global _process  # noqa: PLW0603
    _process = os.getpid()
    _clients.clear()
    _brokers.clear()


def close_all() -> None:
    """Close everything that is open: clients first, since they flush into brokers."""
    open_now = [one for one in [*_clients, *_brokers] if not one.closed]
    for closable in open_now:
        try:
            closable.close(FLUSH_SECONDS)
        except Exception as error:  # noqa: BLE001, PERF203 (there is nobody left to handle it)
            sys.stderr.write(f"ottla: could not close {closable!r}: {error}\n")
    lost = finish(FLUSH_SECONDS)
    if lost:
        sys.stderr.write(f"ottla: producers abandoned with unacknowledged records: {lost}\n")


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
