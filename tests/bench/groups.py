"""What groups cost: ``python tests/bench/groups.py`` with the installed wheel, and only with it.

Three parts. ``consume``: one member reads a topic of 150-byte records to its end, over TCP, into
Arrow. ``rebalance``: a member joins a group of nine; the time until all ten have their share and no
partition has two owners. ``many``: what a broker needs while a thousand groups of ten members send
it heartbeats at the interval that it sets. As in ``end_to_end.py``, nothing asserts a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import struct
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ottla
from end_to_end import Program, binary_table, machine, median, status_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARTBEAT_MS = 20
"""The members' heartbeat interval in ``rebalance``: they learn of a change no earlier."""

OPTIONS = {
    "durability": "os",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.assignment.interval.ms": "0",
}
DEADLINE_S = 60


def broker(stack: ExitStack, **more: str) -> Program:
    """Start a broker that is closed with the stack."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    settings = OPTIONS | {name.replace("__", "."): value for name, value in more.items()}
    options = [word for setting in settings.items() for word in ("-o", "=".join(setting))]
    program = Program(Path(directory) / "data", *options)
    stack.callback(program.kill)
    return program


def consume(rounds: int, rows: int) -> dict[str, float]:
    """Measure one member that reads everything."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        client = stack.enter_context(ottla.connect(broker(stack).bootstrap))
        client.create_topic("records", partitions=4)
        client.write("records", binary_table(rows), key="key", value=ottla.raw("value"))
        numbers = iter(range(10_000))
        for protocol in ("classic", "consumer"):
            joins: list[float] = []

            def read(protocol: str = protocol, joins: list[float] = joins) -> float:
                begin = time.perf_counter()
                found, first = 0, 0.0
                with client.consumer(
                    "records",
                    group_id=f"{protocol}-{next(numbers)}",
                    group_protocol=protocol,
                    auto_offset_reset="earliest",
                    until="caught_up",
                    max_rows=100_000,
                    memory_limit=256 << 20,
                ) as consumer:
                    for batch in consumer:
                        first = first or time.perf_counter()
                        found += len(batch)
                    end = time.perf_counter()
                    consumer.commit()
                assert found == rows
                joins.append((first - begin) * 1e3)
                return rows / (end - first)

            name = f"group consumer ({protocol}), loopback TCP, 150 B to Arrow, rows/s"
            figures[name] = median(read, rounds)
            figures[f"  from its start to its first batch ({protocol}), ms"] = statistics.median(
                joins
            )
    return figures


class Members:
    """Members of one group, each with its own thread, and what they own."""

    def __init__(self, bootstrap: str, group: str, protocol: str) -> None:
        self.bootstrap = bootstrap
        self.group = group
        self.protocol = protocol
        self.owned: list[set[int]] = []
        self.changed = threading.Condition()
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []

    def join(self) -> None:
        """Start one more member."""
        thread = threading.Thread(target=self._run, args=(len(self.owned),), daemon=True)
        self.owned.append(set())
        self.threads.append(thread)
        thread.start()

    def _run(self, me: int) -> None:
        def on_assign(partitions: list[tuple[str, int]]) -> None:
            with self.changed:
                self.owned[me].update(index for _, index in partitions)
                self.changed.notify_all()

        def on_revoke(partitions: list[tuple[str, int]]) -> None:
            with self.changed:
                self.owned[me].difference_update(index for _, index in partitions)
                self.changed.notify_all()

        settings: dict[str, object] = {"group_protocol": self.protocol}
        if self.protocol == "classic":
            settings["partition_assignment_strategy"] = "cooperative-sticky"
            settings["heartbeat_interval_ms"] = HEARTBEAT_MS
        with (
            ottla.connect(self.bootstrap) as client,
            client.consumer(
                "shared", group_id=self.group, on_assign=on_assign, on_revoke=on_revoke, **settings
            ) as consumer,
        ):
            while not self.stop.is_set():
                consumer.poll(timeout=0.01)

    def wait_until_divided(self, partitions: int) -> None:
        """Wait until every partition has one owner, and all members own equally many."""

        def is_divided() -> bool:
            shares = {len(owned) for owned in self.owned}
            everything = sorted(index for owned in self.owned for index in owned)
            return len(shares) == 1 and everything == list(range(partitions))

        with self.changed:
            if not self.changed.wait_for(is_divided, DEADLINE_S):
                msg = f"not divided within {DEADLINE_S} s: {self.owned}"
                raise TimeoutError(msg)

    def end(self) -> None:
        """Stop all members."""
        self.stop.set()
        for thread in self.threads:
            thread.join(DEADLINE_S)


def rebalance(rounds: int) -> dict[str, float]:
    """Measure the time that the tenth member of a group waits for its share."""
    figures: dict[str, float] = {}
    members, partitions = 10, 90
    interval = {
        "group__consumer__min__heartbeat__interval__ms": str(HEARTBEAT_MS),
        "group__consumer__heartbeat__interval__ms": str(HEARTBEAT_MS),
    }
    with ExitStack() as stack:
        bootstrap = broker(stack, **interval).bootstrap
        client = stack.enter_context(ottla.connect(bootstrap))
        client.create_topic("shared", partitions=partitions)
        numbers = iter(range(10_000))
        for protocol, words in (("classic", "cooperative-sticky"), ("consumer", "KIP-848")):

            def last_join(protocol: str = protocol) -> float:
                group = Members(bootstrap, f"{protocol}-{next(numbers)}", protocol)
                try:
                    for _ in range(members - 1):
                        group.join()
                    group.wait_until_divided(partitions)
                    begin = time.perf_counter()
                    group.join()
                    group.wait_until_divided(partitions)
                    return (time.perf_counter() - begin) * 1e3
                finally:
                    group.end()

            name = f"tenth member to balance ({words}), ms"
            figures[name] = median(last_join, rounds)
    figures["  heartbeat interval of the members, ms"] = HEARTBEAT_MS
    return figures


def compact(text: str | None) -> bytes:
    """Encode a text that may be missing, as flexible versions do."""
    if text is None:
        return b"\0"
    encoded = text.encode()
    assert len(encoded) < 127
    return bytes([len(encoded) + 1]) + encoded


class Reader:
    """Reads a response field by field."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, form: str) -> int:
        """Read a number of a fixed size."""
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def varint(self) -> int:
        """Read an unsigned number of any size."""
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def skip(self, count: int) -> None:
        """Skip bytes."""
        self.at += count

    def skip_text(self) -> None:
        """Skip a text that may be missing."""
        self.skip(max(self.varint() - 1, 0))


@dataclass
class Member:
    """A member of the consumer protocol, without a client around it."""

    group: str
    name: str
    epoch: int = 0
    owned: dict[bytes, list[int]] = field(default_factory=dict)
    tells: bool = True

    def request(self) -> bytes:
        """Return the body of its next ConsumerGroupHeartbeat, version 1."""
        joins = self.epoch == 0
        topics = b"\2" + compact("shared") if joins else b"\0"
        body = compact(self.group) + compact(self.name) + struct.pack(">i", self.epoch)
        body += compact(None) * 2 + struct.pack(">i", 60_000 if joins else -1)
        body += topics + compact(None) * 2
        if joins or self.tells:
            body += bytes([len(self.owned) + 1])
            for topic, indexes in self.owned.items():
                body += topic + bytes([len(indexes) + 1])
                body += struct.pack(f">{len(indexes)}i", *indexes) + b"\0"
        else:
            body += b"\0"
        self.tells = False
        return body + b"\0"

    def take(self, response: bytes) -> int:
        """Process the answer; return when to send the next heartbeat, in milliseconds."""
        reader = Reader(response)
        reader.skip(4)
        error = reader.number(">h")
        if error:
            msg = f"member {self.name} of {self.group} is refused with error {error}"
            raise RuntimeError(msg)
        reader.skip_text()
        reader.skip_text()
        self.epoch = reader.number(">i")
        interval = reader.number(">i")
        if reader.number("b") >= 0:
            self.owned, self.tells = {}, True
            for _ in range(reader.varint() - 1):
                topic = reader.data[reader.at : reader.at + 16]
                reader.skip(16)
                self.owned[topic] = [reader.number(">i") for _ in range(reader.varint() - 1)]
                reader.varint()
        return interval


class Connection:
    """A connection that many members share; answers come in the order of the requests."""

    HEARTBEAT = struct.pack(">hh", 68, 1)

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.asked: asyncio.Queue[asyncio.Future[bytes]] = asyncio.Queue()
        self.answers = asyncio.create_task(self._answers())

    async def _answers(self) -> None:
        while True:
            (length,) = struct.unpack(">i", await self.reader.readexactly(4))
            frame = await self.reader.readexactly(length)
            (await self.asked.get()).set_result(frame[5:])

    async def report(self, member: Member) -> tuple[int, float]:
        """Send a member's heartbeat; return its interval, and how long the answer took."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        header = self.HEARTBEAT + struct.pack(">ih", 0, 5) + b"bench\0"
        request = header + member.request()
        begin = time.perf_counter()
        self.writer.write(struct.pack(">i", len(request)) + request)
        response = await answer
        return member.take(response), time.perf_counter() - begin


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def reports(
    members: list[tuple[Connection, Member]], pid: int, seconds: float
) -> dict[str, float]:
    """Let every member send heartbeats at its interval, and observe the broker for a while."""
    took: list[float] = []
    interval, _ = await members[0][0].report(members[0][1])
    ended = asyncio.Event()

    async def one(place: int, connection: Connection, member: Member) -> None:
        # They do not all send heartbeats at the same moment.
        await asyncio.sleep(interval / 1e3 * place / len(members))
        while not ended.is_set():
            begin = time.perf_counter()
            _, latency = await connection.report(member)
            took.append(latency)
            await asyncio.sleep(interval / 1e3 - (time.perf_counter() - begin))

    async def watch() -> dict[str, float]:
        await asyncio.sleep(interval / 1e3)
        took.clear()
        begin, cpu = time.perf_counter(), cpu_seconds(pid)
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - begin
        ended.set()
        quantiles = statistics.quantiles(took, n=100)
        return {
            "heartbeat interval, ms": interval,
            "heartbeats served, 1/s": len(took) / elapsed,
            "  processor of the broker, % of a core": 100 * (cpu_seconds(pid) - cpu) / elapsed,
            "  answered within, median, ms": quantiles[49] * 1e3,
            "  answered within, 99th percentile, ms": quantiles[98] * 1e3,
        }

    reporting = asyncio.gather(*(one(place, *each) for place, each in enumerate(members)))
    figures = await watch()
    await reporting
    return figures


def groups_of(count: int, size: int) -> Iterator[list[Member]]:
    """Return the members of every group."""
    for group in range(count):
        yield [Member(f"group-{group}", f"member-{index}") for index in range(size)]


async def serve_many(program: Program, count: int, size: int, seconds: float) -> dict[str, float]:
    """Let all members join, settle and send heartbeats."""
    host, port = program.bootstrap.rsplit(":", 1)
    pid = program.process.pid
    figures = {"anonymous memory before, MiB": status_kib(pid, "RssAnon") / 1024}
    connections = [Connection(*await asyncio.open_connection(host, int(port))) for _ in range(20)]
    begin, cpu = time.perf_counter(), cpu_seconds(pid)
    everybody: list[tuple[Connection, Member]] = []

    async def settle(connection: Connection, group: list[Member]) -> None:
        deadline = time.perf_counter() + DEADLINE_S
        while any(sum(map(len, member.owned.values())) != 1 for member in group):
            if time.perf_counter() > deadline:
                msg = f"{group[0].group} is not divided within {DEADLINE_S} s"
                raise TimeoutError(msg)
            for member in group:
                await connection.report(member)

    groups = list(groups_of(count, size))
    # A few groups at a time, so that none waits for all the others.
    for start in range(0, len(groups), len(connections)):
        batch = list(zip(connections, groups[start : start + len(connections)], strict=False))
        await asyncio.gather(*(settle(*each) for each in batch))
        everybody += [(connection, member) for connection, group in batch for member in group]
    members = count * size
    figures[f"{members:,} members joined and settled, s"] = time.perf_counter() - begin
    figures["  processor time of that, s"] = cpu_seconds(pid) - cpu
    figures["anonymous memory with them, MiB"] = status_kib(pid, "RssAnon") / 1024
    figures |= await reports(everybody, pid, seconds)
    figures["anonymous memory afterwards, MiB"] = status_kib(pid, "RssAnon") / 1024
    for connection in connections:
        connection.answers.cancel()
        connection.writer.close()
    return figures


def many(count: int, size: int, seconds: float) -> dict[str, float]:
    """Measure what many groups cost the broker."""
    with ExitStack() as stack:
        program = broker(stack)
        client = stack.enter_context(ottla.connect(program.bootstrap))
        client.create_topic("shared", partitions=size)
        # The first group creates the groups topic.
        with client.consumer("shared", group_id="first", until="caught_up") as consumer:
            for _ in consumer:
                pass
        return asyncio.run(serve_many(program, count, size, seconds))


def main() -> int:
    """Run the requested parts and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements for each median")
    parser.add_argument("--rows", type=int, default=2_000_000, help="records to consume")
    parser.add_argument("--groups", type=int, default=1_000, help="groups of ten members")
    parser.add_argument("--seconds", type=float, default=15, help="how long these send heartbeats")
    parser.add_argument("--part", choices=["all", "consume", "rebalance", "many"], default="all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    if arguments.part in ("all", "consume"):
        figures |= consume(arguments.rounds, arguments.rows)
    if arguments.part in ("all", "rebalance"):
        figures |= rebalance(arguments.rounds)
    if arguments.part in ("all", "many"):
        figures |= many(arguments.groups, 10, arguments.seconds)
    if arguments.json:
        print(json.dumps({"machine": machine(), "figures": figures}, indent=2))
        return 0
    print(f"machine: {machine()}")
    print(f"command: {' '.join(sys.argv)}")
    for name, value in figures.items():
        print(f"  {name:<66} {value:>14,.1f}" if value < 1e4 else f"  {name:<66} {value:>14,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
