"""What the engine tells Python's ``logging``: the loggers ``ottla.client`` and ``ottla.broker``."""

from __future__ import annotations

import logging
import queue
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A guard against waiting for ever, in seconds.
HANG = 30.0


class Heard(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: queue.Queue[logging.LogRecord] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.put(record)

    def until(self, wanted: Callable[[logging.LogRecord], bool]) -> logging.LogRecord:
        """Wait for a record."""
        while True:
            record = self.records.get(timeout=HANG)
            if wanted(record):
                return record


@contextmanager
def hearing(name: str, level: int, handler: logging.Handler) -> Iterator[None]:
    """Listen to a logger."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_a_broker_tells_of_its_life() -> None:
    heard = Heard()
    with hearing("ottla", logging.INFO, heard):
        with ottla.Broker() as broker:
            serving = heard.until(lambda record: record.getMessage().startswith("serving"))
            assert (serving.name, serving.levelno) == ("ottla.broker", logging.INFO)
            assert broker.bootstrap_servers in serving.getMessage()
        heard.until(lambda record: record.getMessage().startswith("stopping"))


def test_a_level_counts_from_the_next_call_on() -> None:
    with ottla.Broker() as busy, busy.client() as client:
        for level in (logging.INFO, logging.WARNING, logging.INFO):
            client.topics()
            heard = Heard()
            with hearing("ottla", level, heard), ottla.Broker():
                pass
            told = [record.levelno for record in heard.records.queue]
            assert level == logging.WARNING or told
            assert all(one >= level for one in told)


def test_a_client_tells_what_it_tries_again() -> None:
    heard = Heard()
    with (
        hearing("ottla.client", logging.DEBUG, heard),
        ottla.connect("nobody.invalid:9092") as client,
        pytest.raises(ottla.ConnectionError),
    ):
        client.topics()
    record = heard.until(lambda record: "nobody.invalid:9092" in record.getMessage())
    assert (record.name, record.levelno) == ("ottla.client", logging.DEBUG)


def test_a_level_that_changes_while_nothing_is_called_is_seen() -> None:
    heard = Heard()
    with ottla.Broker() as broker, ottla.connect(broker.bootstrap_servers) as client:
        client.topics()
        with hearing("ottla.broker", logging.DEBUG, heard):
            # Only the thread that hands over looks at levels now.
            while heard.records.empty():
                subprocess.run(
                    [
                        sys.executable,
                        "-c",
                        "import sys, kafka; kafka.KafkaAdminClient(bootstrap_servers=sys.argv[1])",
                        broker.bootstrap_servers.split(",")[0],
                    ],
                    check=True,
                    timeout=HANG,
                )


def test_records_are_not_told_of_one_by_one() -> None:
    heard = Heard()
    with (
        ottla.Broker() as broker,
        broker.client(linger_ms=0) as local,
        ottla.connect(broker.bootstrap_servers, linger_ms=0) as remote,
    ):
        local.create_topic("t")
        with hearing("ottla", logging.INFO, heard):
            for client in (local, remote):
                for number in range(50):
                    client.send("t", str(number))
                client.write("t", pl.DataFrame({"id": range(10_000)}))
                assert len(client.scan("t").to_polars()) >= 10_050
                with client.consumer("t", start="earliest", until="caught_up") as consumer:
                    assert sum(batch.num_rows for batch in consumer) >= 10_050
    assert heard.records.qsize() < 10, list(heard.records.queue)


def test_a_handler_may_use_the_client_and_may_be_slow() -> None:
    released, told = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not told.is_set():
                assert record.name.startswith("ottla.")
                told.set()
                inner.topics()
                released.wait(HANG)

    with ottla.Broker() as broker, broker.client() as inner:
        with (
            hearing("ottla", logging.DEBUG, Slow()),
            ottla.connect("nobody.invalid:9092") as client,
        ):
            with pytest.raises(ottla.ConnectionError):
                client.topics()
            assert told.wait(HANG)
            # What the engine does goes on, and what it tells waits.
            for number in range(100):
                inner.send("t", str(number))
            released.set()
        assert inner.scan("t").count() == 100


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def test_what_was_told_before_the_exit_is_heard() -> None:
    done = run(
        """
        import logging
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
        import ottla
        broker = ottla.Broker()
        """
    )
    assert done.returncode == 0, done.stderr
    assert "ottla.broker serving" in done.stderr
    assert "ottla.broker stopping" in done.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_fork_tells_by_a_thread_of_its_own() -> None:
    done = run(
        """
        import logging, os, sys
        logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
        import ottla
        parent = ottla.Broker()
        child = os.fork()
        if child == 0:
            with ottla.Broker():
                pass
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        parent.close()
        print(child, os.waitstatus_to_exitcode(status))
        """
    )
    child, status = done.stdout.split()
    assert status == "0", done.stderr
    assert f"{child} serving" in done.stderr
    assert f"{child} stopping" in done.stderr


def test_the_command_line_logs_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ottla", "topics", "list", "-b", "nobody.invalid:1"],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 5
    assert "could not resolve nobody.invalid:1" in done.stderr
