"""The broker as a program, and Apache Kafka's tools, as the tests run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

READY_TIMEOUT_S = 30


def ottla_program() -> str:
    """Return the ``ottla`` program: ``OTTLA_BIN``, or the one beside this interpreter."""
    return os.environ.get("OTTLA_BIN") or installed_program()


def installed_program() -> str:
    """Return the ``ottla`` program beside this interpreter, which the wheel brought."""
    return str(Path(sysconfig.get_path("scripts")) / "ottla")


def missing(what: str, remedy: str) -> None:
    """Skip the test if a tool is missing; fail instead if ``OTTLA_REQUIRE_ALL`` is set."""
    message = f"{what} is not installed; {remedy}"
    if os.environ.get("OTTLA_REQUIRE_ALL"):
        pytest.fail(message)
    pytest.skip(message)


class Program:
    """The ``ottla`` program at ``path``, with a cluster to talk to.

    ``command`` is what every call begins with, such as ``cluster``.
    """

    def __init__(self, path: str, bootstrap: str, *command: str) -> None:
        self.path = path
        self._command = command
        self.environment = {
            **os.environ,
            "OTTLA_BOOTSTRAP_SERVER": bootstrap,
            "PYTHONWARNINGS": "ignore::RuntimeWarning",
        }

    def run(
        self, *arguments: str, stdin: str | None = None, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be this status."""
        done = subprocess.run(
            [self.path, *self._command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=self.environment,
        )
        assert done.returncode == status, (arguments, done)
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command and read what it prints as JSON."""
        return json.loads(self.run(*arguments).stdout)


class BrokerProcess:
    """``ottla broker start`` as a child process."""

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        port: int = 0,
        program: str | None = None,
        preexec: Callable[[], None] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.stderr"
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [
                    program or ottla_program(),
                    "broker",
                    "start",
                    "--data-dir",
                    str(data_dir),
                    "--listeners",
                    f"PLAINTEXT://127.0.0.1:{port}",
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                preexec_fn=preexec,  # noqa: PLW1509 (no threads touch the child's state)
            )
        watchdog = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line.startswith("ready bootstrap="):
            self.kill()
            msg = f"no ready line but {line!r}; stderr:\n{self.stderr()}"
            raise RuntimeError(msg)
        self.bootstrap = line.split()[1].removeprefix("bootstrap=")
        self.port = int(self.bootstrap.rsplit(":", 1)[1])

    def stderr(self) -> str:
        """Return what the broker logged."""
        return self.log.read_text(errors="replace")[-20_000:]

    def stop(self) -> int:
        """Stop the broker as an operator does and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self._close()
        return status

    def kill(self) -> None:
        """Kill the broker, as a crash does."""
        self.process.kill()
        self.process.wait(30)
        self._close()

    def pause(self) -> None:
        """Let the broker stand still: when this returns, none of its threads runs any more."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """Let the broker go on where it stood still."""
        self.process.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


def kafka_libs() -> str:
    """Return the folder of Apache Kafka's jars, or skip the test."""
    libs = os.environ.get("OTTLA_KAFKA_LIBS", "")
    if not libs or not Path(libs).is_dir():
        missing("Apache Kafka", "set OTTLA_KAFKA_LIBS to the folder of its jars")
    if shutil.which("java") is None:
        missing("Java", "apt-get install default-jre-headless")
    return libs


def go_program(package: str, folder: Path) -> Path:
    """Build a program of `clients/franz_go` into a folder, or skip the test."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    binary = folder / "program"
    built = subprocess.run(
        ["go", "build", "-o", str(binary), f"./{package}"],
        cwd=Path(__file__).parent / "clients" / "franz_go",
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "GOPROXY=off" in built.stderr or "disabled by" in built.stderr:
        pytest.skip("franz-go is not there; run `go mod download` in tests/python/clients/franz_go")
    assert built.returncode == 0, built.stderr
    return binary


class JavaTools:
    """Apache Kafka's command-line tools."""

    CLASSES: ClassVar[dict[str, str]] = {
        "configs": "org.apache.kafka.tools.ConfigCommand",
        "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
        "console-producer": "org.apache.kafka.tools.ConsoleProducer",
        "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
        "dump-log": "org.apache.kafka.tools.DumpLogSegments",
        "features": "org.apache.kafka.tools.FeatureCommand",
        "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
        "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
        "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
        "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
        "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
        "reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "topics": "org.apache.kafka.tools.TopicCommand",
        "transactional-message-copier": "org.apache.kafka.tools.TransactionalMessageCopier",
        "transactions": "org.apache.kafka.tools.TransactionsCommand",
        "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
        "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
        "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
        "cluster": "org.apache.kafka.tools.ClusterTool",
        "acls": "org.apache.kafka.tools.AclCommand",
    }

    def __init__(self, libs: str) -> None:
        self.libs = libs

    def command(self, tool: str) -> list[str]:
        """Return the command that runs a tool, to which its arguments are added."""
        java = ["java", "-Xmx256M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        return [*java, "-cp", f"{self.libs}/*", self.CLASSES[tool]]

    def run(self, tool: str, *arguments: str, stdin: str | None = None, status: int = 0) -> str:
        """Run a tool to its end and return what it printed on both streams."""
        done = subprocess.run(
            [*self.command(tool), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == status, (
            f"{tool} {arguments} ended with {done.returncode}:\n{output}"
        )
        return output


class KafkaProcess:
    """A node of Apache Kafka, broker and controller in one, from its jars.

    ``ports`` are those of its broker and of its controller, where others must know them before.
    """

    def __init__(
        self,
        libs: str,
        directory: Path,
        *jvm: str,
        ports: tuple[int, int] | None = None,
        **settings: str,
    ) -> None:
        self.port, controller = ports or free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.log = directory / "server.log"
        plain = f"PLAINTEXT://127.0.0.1:{self.port}"
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners={plain},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners={plain}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={directory / 'data'}",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            *(f"{name}={value}" for name, value in settings.items()),
        ]
        properties = directory / "server.properties"
        properties.write_text("\n".join(lines))
        logging = directory / "log4j2.properties"
        logging.write_text(
            "appender.out.type = Console\nappender.out.name = out\n"
            "appender.out.layout.type = PatternLayout\nappender.out.layout.pattern = %p %m%n\n"
            "rootLogger.level = INFO\nrootLogger.appenderRef.out.ref = out\n"
        )
        java = ["java", *(jvm or ("-Xmx512M",)), f"-Dlog4j2.configurationFile={logging}"]
        java += ["-cp", f"{libs}/*"]
        storage = [*java, "kafka.tools.StorageTool", "format", "-c", str(properties)]
        cluster_id = "b3R0bGEtdGVzdC1jbHVzdA"
        subprocess.run([*storage, "-t", cluster_id], check=True, capture_output=True, timeout=60)
        self.command = [*java, "kafka.Kafka", str(properties)]
        self.ready_seconds = self.start()

    def start(self) -> float:
        """Start the node, possibly after a kill; return how many seconds it took to be ready."""
        begin = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        while "Kafka Server started" not in self.log.read_text(errors="replace"):
            if self.process.poll() is not None or time.monotonic() > begin + 120:
                self.stop()
                msg = f"Apache Kafka did not start:\n{self.log.read_text(errors='replace')[-5000:]}"
                raise RuntimeError(msg)
            time.sleep(0.01)
        return time.monotonic() - begin

    def stop(self) -> None:
        """Kill the node, as a crash does."""
        self.process.kill()
        self.process.wait(30)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
