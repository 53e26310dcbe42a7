"""Producers of several clients that never pause, and when their records were acknowledged."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer

import ottla
from processes import JavaTools

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError, Message

RATE = 250
"""Records a second: a gap of four milliseconds is no silence."""
PATIENCE_S = 120
REQUEST_TIMEOUT_MS = 2000
"""With their defaults, clients would wait half a minute or longer for a leader that stands still,
whatever the cluster does meanwhile."""


class Load(ABC):
    """Sends the numbers from 0 to partition 0 of a topic, at a rate."""

    def __init__(self) -> None:
        self.acknowledged: list[float] = []
        self.refused: list[str] = []

    @abstractmethod
    def end(self) -> int:
        """Stop, wait until everything is acknowledged, and return how many were sent."""

    @abstractmethod
    def close(self) -> None:
        """Stop; after the end it does nothing."""

    def wait_until_acknowledged_after(self, moment: float) -> None:
        """Wait until something that was acknowledged after this moment is there."""
        begin = time.perf_counter()
        while not self.acknowledged or self.acknowledged[-1] <= moment:
            assert time.perf_counter() < begin + PATIENCE_S, "nothing is acknowledged any more"
            time.sleep(0.01)

    def silence_after(self, moment: float) -> float:
        """Return the longest time in seconds without an acknowledgement since then."""
        before = [at for at in self.acknowledged if at <= moment][-1:]
        times = before + [at for at in self.acknowledged if at > moment]
        return max(later - earlier for earlier, later in pairwise(times))

    def _acknowledge(self) -> None:
        self.acknowledged.append(time.perf_counter())


class _OwnThread(Load):
    """A client in this process, with a thread that sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        begin = time.perf_counter()
        while not self._over.is_set():
            self._send(self.sent)
            self.sent += 1
            while (left := begin + self.sent / RATE - time.perf_counter()) > 0:
                self._wait(left)

    @abstractmethod
    def _send(self, number: int) -> None:
        """Send a record, without waiting for it."""

    @abstractmethod
    def _wait(self, seconds: float) -> None:
        """Wait so long for the next record."""

    @abstractmethod
    def _flush(self) -> None:
        """Wait until everything is acknowledged."""

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        self._flush()
        return self.sent

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Confluent(_OwnThread):
    """confluent-kafka, idempotent."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 0,
                "delivery.timeout.ms": PATIENCE_S * 1000,
                "socket.timeout.ms": REQUEST_TIMEOUT_MS,
                "request.timeout.ms": REQUEST_TIMEOUT_MS,
            }
        )
        super().__init__()

    def _send(self, number: int) -> None:
        self._producer.produce(self._topic, str(number), partition=0, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._acknowledge()
        else:
            self.refused.append(str(error))

    def _wait(self, seconds: float) -> None:
        self._producer.poll(seconds)

    def _flush(self) -> None:
        left = self._producer.flush(PATIENCE_S)
        assert left == 0, f"{left} are not acknowledged"


class Ottla(_OwnThread):
    """Our own client."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._client = ottla.connect(bootstrap)
        self._waiting: queue.SimpleQueue[ottla.Pending | None] = queue.SimpleQueue()
        self._acknowledging = threading.Thread(target=self._await_each, daemon=True)
        self._acknowledging.start()
        super().__init__()

    def _await_each(self) -> None:
        while (pending := self._waiting.get()) is not None:
            try:
                pending.result(PATIENCE_S)
            except ottla.errors.KafkaError as error:
                self.refused.append(str(error))
            else:
                self._acknowledge()

    def _send(self, number: int) -> None:
        value = str(number).encode()
        self._waiting.put(self._client.send_async(self._topic, value, partition=0))

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def _flush(self) -> None:
        self._waiting.put(None)
        self._acknowledging.join()

    def close(self) -> None:
        super().close()
        self._client.close()


class _OwnProcess(Load):
    """A client that is a program, which prints a line for each acknowledgement."""

    def __init__(self, *command: str, directory: Path | None = None) -> None:
        super().__init__()
        self.sent: int | None = None
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=directory
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._understand(line)

    @abstractmethod
    def _understand(self, line: str) -> None:
        """Take an acknowledgement, a refusal, or the number of records sent from a line."""

    @abstractmethod
    def _stop(self) -> None:
        """Have it end on its own."""

    def end(self) -> int:
        self._stop()
        self._process.wait(PATIENCE_S)
        self._thread.join()
        assert self.sent is not None, f"it ended with {self._process.returncode}"
        return self.sent

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Java(_OwnProcess):
    """The Java client, as ``kafka-verifiable-producer`` uses it, idempotent."""

    def __init__(self, libs: str, bootstrap: str, topic: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="versus-")
        config = Path(self._folder.name, "producer.properties")
        settings = {
            "enable.idempotence": "true",
            "retries": "2147483647",
            "request.timeout.ms": REQUEST_TIMEOUT_MS,
            "delivery.timeout.ms": PATIENCE_S * 1000,
        }
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        arguments = ["--bootstrap-server", bootstrap, "--topic", topic, "--throughput", str(RATE)]
        command = [*JavaTools(libs).command("verifiable-producer"), *arguments]
        super().__init__(*command, "--acks", "-1", "--command-config", str(config))

    def _understand(self, line: str) -> None:
        event = json.loads(line)
        match event["name"]:
            case "producer_send_success":
                self._acknowledge()
            case "producer_send_error":
                self.refused.append(line)
            case "tool_data":
                self.sent = event["sent"]

    def _stop(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


class FranzGo(_OwnProcess):
    """franz-go, idempotent by default."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        program = Path(__file__).parent / "franz_go"
        # Built here and not by `go run`, which would get the end of the input in its place.
        self._folder = tempfile.TemporaryDirectory(prefix="versus-")
        binary = str(Path(self._folder.name, "producer"))
        subprocess.run(["go", "build", "-o", binary, "."], cwd=program, check=True)
        super().__init__(binary, bootstrap, topic, str(RATE))

    def _understand(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word.strip():
            case "acknowledged":
                self._acknowledge()
            case "refused":
                self.refused.append(rest)
            case "sent":
                self.sent = int(rest)

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def clients(libs: str | None) -> dict[str, Callable[[str, str], Load]]:
    """Return what can be started here, by the names of the clients."""
    found: dict[str, Callable[[str, str], Load]] = {"confluent-kafka": Confluent, "ottla": Ottla}
    if libs is not None:
        found["Java"] = lambda bootstrap, topic: Java(libs, bootstrap, topic)
    if shutil.which("go"):
        found["franz-go"] = FranzGo
    return found
