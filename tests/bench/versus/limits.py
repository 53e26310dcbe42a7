"""The limits of the machine, against which all other figures are to be read."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from versus.measure import LOOPBACK, MACHINE, MEMCPY

if TYPE_CHECKING:
    from versus.measure import Results

TOTAL = 1 << 30
SYNCS = 50
COPIES = 5


def copies(results: Results) -> None:
    """One round of memory and loopback, on which the ratios are based."""
    source = np.ones(256 << 20, np.uint8)
    target = np.empty_like(source)
    target[:] = source  # the pages exist now
    fastest = float("inf")
    for _ in range(COPIES):
        begin = time.perf_counter()
        target[:] = source
        fastest = min(fastest, time.perf_counter() - begin)
    results.add(MEMCPY, MACHINE, source.nbytes / 1e9 / fastest)
    results.add(LOOPBACK, MACHINE, loopback())


def disk(results: Results) -> None:
    """One round of the disk on which the brokers of this bench keep their data."""
    with tempfile.NamedTemporaryFile() as file:
        chunk = bytes(1 << 20)
        begin = time.perf_counter()
        for _ in range(512):
            file.write(chunk)
        file.flush()
        os.fdatasync(file.fileno())
        rate = 512 * len(chunk) / 1e9 / (time.perf_counter() - begin)
        results.add("disk, written and synced, GB/s", MACHINE, rate)
        begin = time.perf_counter()
        for _ in range(SYNCS):
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fdatasync(file.fileno())
        took = (time.perf_counter() - begin) / SYNCS * 1e3
        results.add("fdatasync of one page, ms", MACHINE, took, lower=True)


def loopback() -> float:
    """Return how much one socket of this machine carries to another, in GB/s."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        sender, _ = listener.accept()
        chunk = bytes(1 << 20)
        with sender:
            for _ in range(TOTAL // len(chunk)):
                sender.sendall(chunk)

    thread = threading.Thread(target=send)
    thread.start()
    buffer = bytearray(1 << 20)
    with socket.create_connection(listener.getsockname()) as receiver:
        begin, found = time.perf_counter(), 0
        while size := receiver.recv_into(buffer):
            found += size
        elapsed = time.perf_counter() - begin
    thread.join()
    listener.close()
    assert found == TOTAL
    return found / 1e9 / elapsed
