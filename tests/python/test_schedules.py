"""Random schedules of what programs do to consumers, and what holds whatever they do.

A program polls, seeks, pauses, commits and closes; a signal interrupts any of these in the middle,
awaited polls are cancelled, members come and go, records are added. After each step:

- what is handed out of a partition begins where the last batch ended, or where the program said;
- nothing comes of a partition that is paused or another member's;
- every record in front of an offset that the group has was handed out, or skipped by a seek;

and in the end every record was handed out or skipped. ``OTTLA_SCHEDULES`` says how many schedules
of each kind there are.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    T = TypeVar("T")

SCHEDULES = int(os.environ.get("OTTLA_SCHEDULES", "6"))
STEPS = 30
PARTITIONS = range(2)

# Before 3.11 Python may raise between the return of a function and the assignment of its value.
signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer") or sys.version_info < (3, 11), reason="needs signals in time"
)


class Interrupted(BaseException):
    """What the signal handler raises."""


class Gate:
    """Lets signals through, or not."""

    def __init__(self) -> None:
        self.is_open = False

    def handle(self, *_: object) -> None:
        if self.is_open:
            raise Interrupted

    def interrupt(self, call: Callable[[], T], seconds: float) -> tuple[T | None, bool]:
        """Call, and interrupt after a while; return what it returned, and whether it was."""
        result = None
        try:
            self.is_open = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            result = call()
            # No function is called in between, so that nothing is raised.
            self.is_open = False
        except Interrupted:
            self.is_open = False
            return None, True
        finally:
            self.is_open = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return result, False


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    old = signal.signal(signal.SIGALRM, gate.handle)
    yield gate
    signal.signal(signal.SIGALRM, old)


class World:
    """The topic, the group, and what all members together were handed."""

    def __init__(
        self, client: ottla.Client, topic: str, kind: str | None, dice: random.Random
    ) -> None:
        self.client = client
        self.topic = topic
        self.kind = kind
        self.dice = dice
        self.auto_commit = kind is not None and dice.random() < 0.3
        self.ends = dict.fromkeys(PARTITIONS, 0)
        self.handed: dict[int, set[int]] = {one: set() for one in PARTITIONS}
        self.skipped: dict[int, set[int]] = {one: set() for one in PARTITIONS}

    def send(self) -> None:
        for _ in range(self.dice.randrange(1, 12)):
            partition = self.dice.choice(PARTITIONS)
            self.client.send_async(self.topic, str(self.ends[partition]), partition=partition)
            self.ends[partition] += 1
        self.client.flush(30)

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_rows": self.dice.choice([1, 3, 8]), "max_wait": 0}
        if self.kind is None:
            return {"start": "earliest", **options}
        options |= {"group_id": self.topic, "group_protocol": self.kind}
        options |= {"auto_offset_reset": "earliest"}
        if self.kind == "classic":
            strategies = ["range", "cooperative-sticky"]
            options["partition_assignment_strategy"] = strategies[len(self.topic) % 2]
            options["heartbeat_interval_ms"] = 20
        if self.auto_commit:
            options |= {"auto_commit": True, "auto_commit_interval_ms": 1}
        return options

    def check_offset(self, partition: int, offset: int) -> None:
        """Nothing in front of an offset of the group is missing."""
        done = self.handed[partition] | self.skipped[partition]
        missing = sorted(set(range(offset)) - done)
        assert not missing, f"{partition}: at {offset}, but {missing} was not handed out"

    def check_group(self) -> None:
        if self.kind is None or self.topic not in self.client.groups:
            return
        for one in self.client.groups[self.topic].partitions:
            if one.committed_offset is not None:
                self.check_offset(one.partition, one.committed_offset)


class Reader:
    """A consumer, and where its next rows must begin."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.world = world
        self.gate = gate
        self.expected: dict[int, int] = {}
        self.paused: set[int] = set()
        self.batches: list[ottla.RecordBatch] = []
        options = world.options()
        if world.kind is not None:
            options |= {"on_assign": self.assigned, "on_revoke": self.revoked, "on_lost": self.lost}
        self.consumer = world.client.consumer(world.topic, **options)
        if world.kind is None:
            self.expected = dict.fromkeys(PARTITIONS, 0)

    # What the consumer tells; a signal does not come into the middle of the model.

    def assigned(self, partitions: list[tuple[str, int]]) -> None:
        was_open, self.gate.is_open = self.gate.is_open, False
        position = self.consumer.position()[self.world.topic] if partitions else {}
        for _, partition in partitions:
            self.world.check_offset(partition, position[partition])
            self.expected[partition] = position[partition]
            self.paused.discard(partition)
        self.gate.is_open = was_open

    def revoked(self, partitions: list[tuple[str, int]]) -> None:
        was_open, self.gate.is_open = self.gate.is_open, False
        if self.world.dice.random() < 0.5:
            self.consumer.commit()
            self.world.check_group()
        for _, partition in partitions:
            self.expected.pop(partition, None)
        self.gate.is_open = was_open

    def lost(self, partitions: list[tuple[str, int]]) -> None:
        was_open, self.gate.is_open = self.gate.is_open, False
        for _, partition in partitions:
            self.expected.pop(partition, None)
        self.gate.is_open = was_open

    def assignment(self) -> set[int]:
        return {partition for _, partition in self.consumer.assignment}

    # What came.

    def take(self, batch: ottla.RecordBatch | None) -> None:
        if batch is None:
            return
        self.batches.append(batch)
        assert 0 < batch.num_rows <= 8
        rows: dict[int, list[int]] = {}
        columns = (batch[name].to_pylist() for name in ("partition", "offset", "value"))
        for partition, offset, value in zip(*columns, strict=True):
            assert int(value) == offset
            rows.setdefault(partition, []).append(offset)
        for partition, offsets in rows.items():
            first, end = offsets[0], offsets[-1] + 1
            assert partition not in self.paused
            assert first == self.expected[partition]
            assert offsets == list(range(first, end))
            assert batch.offsets[self.world.topic][partition] == (first, end)
            self.world.handed[partition].update(offsets)
            self.expected[partition] = end

    def check(self) -> None:
        position = self.consumer.position().get(self.world.topic, {})
        # After an interrupt in `on_revoke` it was told, but did not hear.
        self.expected = {one: at for one, at in self.expected.items() if one in position}
        assert {one: position[one] for one in self.expected} == self.expected
        self.world.check_group()

    # What a program does.

    def step(self, interrupt: float | None, loop: asyncio.AbstractEventLoop | None) -> None:
        dice = self.world.dice
        actions = [self.poll] * 6 + [self.seek, self.pause, self.resume, self.ask]
        if self.world.kind is not None:
            actions += [self.commit, self.commit_batch, self.commit]
        action = dice.choice(actions)
        if action == self.poll and loop is not None and dice.random() < 0.8:
            self.take(loop.run_until_complete(self.cancelled_poll(dice.choice([0, 1, 3, 20]))))
        else:
            action(interrupt)
        self.check()

    def run(self, call: Callable[[], T], interrupt: float | None) -> tuple[T | None, bool]:
        if interrupt is None:
            return call(), False
        return self.gate.interrupt(call, interrupt)

    async def cancelled_poll(self, turns: int) -> ottla.RecordBatch | None:
        task = asyncio.ensure_future(self.consumer.__anext__())
        for turn in range(turns + 1):
            await asyncio.sleep(0 if turn < 2 else 0.001)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None

    def poll(self, interrupt: float | None) -> None:
        timeout = self.world.dice.choice([0, 0.002, 0.02])
        batch, _ = self.run(lambda: self.consumer.poll(timeout), interrupt)
        self.take(batch)

    def seek(self, interrupt: float | None) -> None:
        chosen = [one for one in self.expected if self.world.dice.random() < 0.7]
        if not chosen:
            return
        to = {one: self.world.dice.randrange(self.world.ends[one] + 1) for one in chosen}
        # If it is interrupted, some partitions may be there and others not.
        try:
            self.run(lambda: self.consumer.seek(to), interrupt)
        except ottla.ConfigError:
            # What it will hear next is that one of them was revoked.
            assert not set(to) <= self.assignment()
            return
        now = self.consumer.position().get(self.world.topic, {})
        for partition in to.keys() & now.keys():
            before, at, offset = self.expected[partition], now[partition], to[partition]
            assert at == offset or (interrupt is not None and at == before)
            self.world.skipped[partition].update(range(before, at))
            self.expected[partition] = at

    def pause(self, interrupt: float | None) -> None:
        chosen = [one for one in self.expected if self.world.dice.random() < 0.5]
        named = [(self.world.topic, one) for one in chosen]
        try:
            if self.run(lambda: self.consumer.pause(named), interrupt)[1]:
                self.consumer.pause(named)
        except ottla.ConfigError:
            assert not set(chosen) <= self.assignment()
            self.consumer.resume()
            self.paused.clear()
        else:
            self.paused.update(chosen)

    def resume(self, interrupt: float | None) -> None:
        if self.run(self.consumer.resume, interrupt)[1]:
            self.consumer.resume()
        self.paused.clear()

    def ask(self, interrupt: float | None) -> None:
        lag, _ = self.run(self.consumer.lag, interrupt)
        known = lag[self.world.topic] if lag else {}
        # It may know partitions of which the program will hear next, and the other way round.
        for partition in known.keys() & self.expected.keys():
            assert known[partition] == self.world.ends[partition] - self.expected[partition]

    def commit(self, interrupt: float | None) -> None:
        self.run(self.consumer.commit, interrupt)

    def commit_batch(self, interrupt: float | None) -> None:
        """Commit one of the last batches, also an older one after a newer one."""
        if not self.batches:
            return
        batch = self.world.dice.choice(self.batches[-3:])
        ends = {one: end for one, (_, end) in batch.offsets[self.world.topic].items()}
        try:
            committed, was = self.run(lambda: self.consumer.commit(batch), interrupt)
        except ottla.FencedError:
            # Another member may have them.
            assert not set(ends) <= set(self.expected)
            return
        assert was or committed == {self.world.topic: ends}

    def close(self, interrupt: float | None) -> None:
        dice = self.world.dice
        failed = dice.random() < 0.3
        self.run(lambda: self.consumer._close(30, failed=failed), interrupt)
        # Once more, since that may have been interrupted.
        self.consumer.close()
        self.world.check_group()


def play(world: World, gate: Gate, *, interrupts: bool, loop: Any) -> None:
    dice = world.dice
    readers: list[Reader] = []
    try:
        for _ in range(STEPS):
            # From within the first Python code to behind the wait of a poll.
            interrupt = 10 ** dice.uniform(-5, -1.5) if interrupts and dice.random() < 0.6 else None
            if dice.random() < 0.15:
                world.send()
            most = 1 if world.kind is None else 2
            if not readers or (len(readers) < most and dice.random() < 0.2):
                readers.append(Reader(world, gate))
            if dice.random() < 0.06:
                readers.pop(dice.randrange(len(readers))).close(interrupt)
            for reader in readers:
                reader.step(interrupt, loop)
        last = readers.pop() if readers and world.kind is None else None
    finally:
        for reader in readers:
            reader.consumer.close()
    last = last or Reader(world, gate)
    last.resume(None)
    # Nobody is waited for: who was closed, in whatever way, has left.
    deadline = time.monotonic() + 20
    while last.expected != world.ends:
        assert time.monotonic() < deadline
        last.take(last.consumer.poll(0.05))
    last.check()
    last.consumer.close()
    for partition, end in world.ends.items():
        world.check_offset(partition, end)


KINDS = [None, "classic", "consumer"]


@pytest.mark.parametrize("seed", range(SCHEDULES))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("manner", [pytest.param("signals", marks=signals), "async"])
def test_whatever_a_program_does_nothing_is_skipped(
    hurried: ottla.Broker, name: str, gate: Gate, kind: str | None, manner: str, seed: int
) -> None:
    dice = random.Random(f"{kind} {manner} {seed}")
    client = hurried.client() if seed % 2 else ottla.connect(hurried.bootstrap_servers)
    loop = asyncio.new_event_loop() if manner == "async" else None
    with client:
        client.create_topic(name, partitions=len(PARTITIONS))
        world = World(client, name, kind, dice)
        world.send()
        try:
            play(world, gate, interrupts=manner == "signals", loop=loop)
        finally:
            if loop is not None:
                loop.close()
