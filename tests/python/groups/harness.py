"""Members of a group as child processes, and what the tests ask of them together."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import JavaTools

SESSION_MS = 1500
"""How long a member that was killed is missed; the brokers of these tests allow it."""

BROKER_OPTIONS = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
}

JAVA_ASSIGNORS = {
    "range": "org.apache.kafka.clients.consumer.RangeAssignor",
    "roundrobin": "org.apache.kafka.clients.consumer.RoundRobinAssignor",
    "sticky": "org.apache.kafka.clients.consumer.StickyAssignor",
    "cooperative-sticky": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}


@dataclass(frozen=True)
class Kind:
    """A client, and how it takes part in a group."""

    client: str
    assignor: str | None
    protocol: str = "classic"

    def __str__(self) -> str:
        return "-".join(filter(None, [self.client, self.protocol, self.assignor]))


class Member:
    """A member in a process of its own."""

    def __init__(self, group: Group, kind: Kind, instance: str | None = None) -> None:
        self.group = group
        self.kind = kind
        self.assigned: set[int] = set()
        self.rebalances = 0
        self.failures: list[str] = []
        stderr = Path(group.directory) / f"{kind}-{len(group.members)}.stderr"
        self.log = stderr
        with stderr.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(instance),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _command(self, instance: str | None) -> list[str]:
        group, kind = self.group, self.kind
        if kind.client == "java":
            return self._java(instance)
        options = {
            "bootstrap": group.bootstrap,
            "group": group.name,
            "topic": group.topic,
            "assignor": kind.assignor,
            "protocol": kind.protocol,
            "session_ms": SESSION_MS,
            "instance": instance,
        }
        script = Path(__file__).with_name("member.py")
        return [sys.executable, "-W", "ignore", str(script), kind.client, json.dumps(options)]

    def _java(self, instance: str | None) -> list[str]:
        group, kind = self.group, self.kind
        classic = kind.protocol == "classic"
        assert group.java is not None
        config = Path(group.directory) / "java.properties"
        heartbeat = f"heartbeat.interval.ms={SESSION_MS // 5}\n" if classic else ""
        config.write_text(f"metadata.max.age.ms=1000\n{heartbeat}")
        command = group.java.command("verifiable-consumer")
        command += ["--bootstrap-server", group.bootstrap, "--topic", group.topic]
        command += ["--group-id", group.name, "--verbose", "--group-protocol", kind.protocol]
        command += ["--command-config", str(config)]
        if classic:
            command += ["--session-timeout", str(SESSION_MS)]
            command += ["--assignment-strategy", JAVA_ASSIGNORS[kind.assignor or "range"]]
        elif kind.assignor:
            command += ["--group-remote-assignor", kind.assignor]
        if instance:
            command += ["--group-instance-id", instance]
        return command

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            with self.group.changed:
                if self.kind.client == "java":
                    self._on_java(event)
                else:
                    self._on_event(event)
                self.group.changed.notify_all()

    def _on_event(self, event: dict[str, Any]) -> None:
        if "assigned" in event:
            self.assigned.update(event["assigned"])
            self.rebalances += 1
        if "revoked" in event:
            self.assigned.difference_update(event["revoked"])
        for partition, offset in event.get("records", ()):
            self.group.seen[partition, offset] += 1
        if "commit_failed" in event:
            self.failures.append(event["commit_failed"])

    def _on_java(self, event: dict[str, Any]) -> None:
        named = {part["partition"] for part in event.get("partitions", ()) if "partition" in part}
        if event["name"] == "partitions_assigned":
            self.assigned.update(named)
            self.rebalances += 1
        elif event["name"] == "partitions_revoked":
            self.assigned.difference_update(named)
        elif event["name"] == "record_data":
            self.group.seen[event["partition"], event["offset"]] += 1
        elif event["name"] == "offsets_committed" and not event["success"]:
            self.failures.append(str(event.get("error")))

    def kill(self) -> None:
        """End the member as a crash does."""
        self.process.kill()
        self._ended()

    def close(self) -> None:
        """End the member in order; it leaves the group."""
        if self.kind.client == "java":
            self.process.terminate()
        elif self.process.stdin is not None:
            self.process.stdin.close()
        self._ended()

    def _ended(self) -> None:
        self.process.wait(30)
        self._reader.join(30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        with self.group.changed:
            self.assigned.clear()
            if self in self.group.members:
                self.group.members.remove(self)


@dataclass
class Group:
    """A group with its members, on one topic."""

    bootstrap: str
    name: str
    topic: str
    partitions: int
    directory: Path
    java: JavaTools | None = None
    members: list[Member] = field(default_factory=list)
    seen: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often each record, by partition and offset, was handed out."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    produced: Counter[int] = field(default_factory=Counter)
    """How many records each partition has."""

    def join(self, kind: Kind, instance: str | None = None) -> Member:
        """Start a member."""
        member = Member(self, kind, instance)
        self.members.append(member)
        return member

    def produce(self, count: int) -> None:
        """Write this many records to every partition; returns when they are acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for partition in range(self.partitions):
            for _ in range(count):
                producer.produce(self.topic, b"value", partition=partition)
        assert producer.flush(30) == 0
        for partition in range(self.partitions):
            self.produced[partition] += count

    def wait(self, what: str, reached: Callable[[], bool], seconds: float = 40) -> None:
        """Wait until the members have told so much that something holds."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not reached():
                left = deadline - time.monotonic()
                if any(member.process.poll() is not None for member in self.members):
                    raise AssertionError(f"{what}: a member ended\n{self.report()}")
                if left <= 0:
                    raise AssertionError(f"{what}: not within {seconds} s\n{self.report()}")
                self.changed.wait(min(left, 1))

    def is_divided(self) -> bool:
        """Whether every partition has one owner and every member owns something."""
        owned = [index for member in self.members for index in member.assigned]
        idle = any(not member.assigned for member in self.members)
        return sorted(owned) == list(range(self.partitions)) and not idle

    def has_seen_all(self) -> bool:
        """Whether each record was handed out."""
        return all(
            (partition, offset) in self.seen
            for partition, count in self.produced.items()
            for offset in range(count)
        )

    def duplicates(self) -> int:
        """Return how often a record was handed out again."""
        return sum(count - 1 for count in self.seen.values())

    def report(self) -> str:
        """Say where everybody stands."""
        lines = [f"{sum(self.produced.values())} produced, {len(self.seen)} seen"]
        for member in self.members:
            state = f"exit {member.process.poll()}, owns {sorted(member.assigned)}"
            log = member.log.read_text(errors="replace")[-1500:]
            lines.append(f"{member.kind}: {state}, {member.failures[-3:]}\n{log}")
        return "\n".join(lines)

    def end(self) -> None:
        """End all members."""
        for member in list(self.members):
            member.kill()
