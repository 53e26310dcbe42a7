"""Programs that copy a topic in transactions, with librdkafka and with our client, and who checks.

Each transaction takes some numbers from the topic ``numbers``, writes each of them to a topic of
copies and one seal to every partition of a topic of seals, and moves the group's offsets. Some are
aborted, some are left open by a producer whose successor fences it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NUMBERS = "numbers"
PARTITIONS = 3
PATIENCE = 60.0
"""Seconds."""
BATCH = 15
AHEAD = 300
"""How many numbers nobody has copied yet, at most."""
SETTINGS = {
    # When it has lost all brokers, librdkafka 2.16 would begin anew with those that it was told of
    # first, but wait for ever for the coordinator of the group as it knew it before.
    "metadata.recovery.strategy": "none",
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
    # `send_offsets_to_transaction` of librdkafka 2.16 waits for ever for a coordinator that died
    # and that the metadata no longer names: it holds on to what it knew of that node, which is
    # never connected again, and asks anew only when the connection to another node changes. Those
    # that end when nothing is said see to that.
    "connections.max.idle.ms": 2_000,
}


#: What a consumer is told while coordinators move, though librdkafka does not call it retriable.
AGAIN = {
    "_TIMED_OUT",
    "_TRANSPORT",
    "_WAIT_COORD",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "UNSTABLE_OFFSET_COMMIT",
}


class Moments:
    """Steps of all programs, of which one is the moment at which something is to happen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._come = threading.Event()

    def step(self) -> None:
        """Note that a program has come to another place."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._come.set()

    def wait(self, steps: int) -> bool:
        """Wait until the programs have gone on by so many steps."""
        with self._lock:
            self._left = steps
            self._come.clear()
        return self._come.wait(PATIENCE)


class Account:
    """What the programs of one kind did, and what readers saw of it."""

    def __init__(self, kind: str) -> None:
        self.copies, self.seals = f"{kind}-copies", f"{kind}-seals"
        self.group = f"{kind}-group"
        self._lock = threading.Lock()
        #: The numbers of each attempt.
        self.attempts: dict[str, list[int]] = {}
        #: Attempts that may become visible: their commit has begun.
        self.committing: set[str] = set()
        #: Attempts whose commit, or whose abort, was acknowledged.
        self.committed: set[str] = set()
        self.aborted: set[str] = set()
        self.left_open: set[str] = set()
        #: Whatever must not be.
        self.faults: list[str] = []
        #: Numbers that a reader saw copied.
        self.seen: set[int] = set()

    def begin(self, attempt: str, numbers: list[int]) -> None:
        with self._lock:
            self.attempts[attempt] = numbers

    def fault(self, said: str) -> None:
        with self._lock:
            self.faults.append(said)

    def read(self, topic: str, value: str) -> None:
        """Note what a reader of what is committed saw, as soon as it saw it."""
        attempt, _, number = value.partition(" ")
        with self._lock:
            if attempt not in self.committing:
                self.faults.append(f"{topic}: {value} is visible before its commit began")
            if topic == self.copies:
                self.seen.add(int(number))

    def judge(self, copies: list[str], seals: list[str], numbers: int) -> list[str]:
        """Say what is wrong with what is there in the end."""
        faults = list(self.faults)
        by_attempt: dict[str, list[int]] = defaultdict(list)
        for copy in copies:
            attempt, number = copy.split()
            by_attempt[attempt].append(int(number))
        counts = Counter(number for found in by_attempt.values() for number in found)
        faults += [f"{number} is lost" for number in range(numbers) if number not in counts]
        faults += [
            f"{number} is there {count} times" for number, count in counts.items() if count > 1
        ]
        sealed = Counter(seals)
        for attempt in {*by_attempt, *sealed}:
            found, expected = sorted(by_attempt[attempt]), sorted(self.attempts[attempt])
            if found != expected or sealed[attempt] != PARTITIONS:
                faults.append(f"{attempt} is torn: {found} of {expected}, {sealed[attempt]} seals")
        visible = set(sealed)
        faults += [f"{attempt} was committed, and is lost" for attempt in self.committed - visible]
        faults += [f"{attempt} was aborted, and is visible" for attempt in self.aborted & visible]
        faults += [
            f"{attempt} was left open, and is visible" for attempt in self.left_open & visible
        ]
        return faults


class Refused(Exception):  # noqa: N818 (it is no error)
    """The program has changed its mind."""


class Copier(threading.Thread):
    """One program; it goes on until it is told to stop."""

    kind: ClassVar[str]

    def __init__(self, name: str, bootstrap: str, account: Account, moments: Moments) -> None:
        super().__init__(name=name, daemon=True)
        self.bootstrap = bootstrap
        self.account = account
        self.moments = moments
        self.stopping = threading.Event()
        #: What its transactions ended with, so that a failure can be understood.
        self.outcomes: Counter[str] = Counter()
        self.random = random.Random(name)
        self._count = 0

    def run(self) -> None:
        try:
            self.copy()
        except BaseException as error:
            self.account.fault(f"{self.name} died: {error!r}")
            raise

    def copy(self) -> None:
        raise NotImplementedError

    def attempt(self, numbers: list[int]) -> str:
        """Return the name of the next attempt."""
        self._count += 1
        attempt = f"{self.name}.{self._count}"
        self.account.begin(attempt, numbers)
        return attempt

    def records(self, attempt: str, numbers: list[int]) -> Iterator[tuple[str, str, int]]:
        """Topic, value and partition of what a transaction writes."""
        for number in numbers:
            self.moments.step()
            yield self.account.copies, f"{attempt} {number}", number % PARTITIONS
        for partition in range(PARTITIONS):
            yield self.account.seals, attempt, partition
        self.moments.step()


class Confluent(Copier):
    """librdkafka, through confluent-kafka."""

    kind = "confluent"

    def copy(self) -> None:
        self.consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": self.account.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                **SETTINGS,
            }
        )
        self.metadata: Any = None
        self.batch: list[Message] = []
        self.consumer.subscribe([NUMBERS], on_assign=self.assigned, on_revoke=self.revoked)
        self.producer = self.made()
        while not self.stopping.is_set():
            if self.take():
                self.transact()
        self.consumer.close()

    def assigned(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        # Not that of a later generation, in which the rows may be those of another member.
        self.metadata = consumer.consumer_group_metadata()

    def revoked(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self.batch.clear()

    def made(self) -> Producer:
        """Return a producer whose transactions can begin; those before are fenced."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": self.name,
                "transaction.timeout.ms": 60_000,
                "linger.ms": 1,
                **SETTINGS,
            }
        )
        _persevere(lambda: producer.init_transactions(10))
        return producer

    def take(self) -> bool:
        self.batch = []
        while len(self.batch) < BATCH:
            message = self.consumer.poll(0.05 if self.batch else 0.5)
            if message is None:
                break
            if message.error() is None:
                self.batch.append(message)
        return bool(self.batch)

    def transact(self) -> None:
        numbers = [int(message.value()) for message in self.batch]
        attempt = self.attempt(numbers)
        try:
            outcome = self._try(attempt, numbers)
        except Refused:
            outcome = self.give_up(attempt)
        except KafkaException as error:
            outcome = error.args[0].name()
            if error.args[0].fatal():
                self.succeed()
            else:
                outcome = f"{outcome}, {self.give_up(attempt)}"
        self.outcomes[outcome] += 1

    def give_up(self, attempt: str) -> str:
        """Abort, and go back."""
        try:
            _persevere(lambda: self.producer.abort_transaction(10))
        except KafkaException as error:
            if not error.args[0].fatal():
                raise
            self.succeed()
            return f"abort: {error.args[0].name()}"
        self.account.aborted.add(attempt)
        self.rewind()
        return "aborted"

    def succeed(self) -> None:
        """Put another producer in the place of this one, which ends what that left open."""
        self.producer = self.made()
        self.rewind()

    def _try(self, attempt: str, numbers: list[int]) -> str:
        self.producer.begin_transaction()
        self.moments.step()
        for topic, value, partition in self.records(attempt, numbers):
            self.producer.produce(topic, value, partition=partition)
            self.producer.poll(0)
        ends: dict[int, int] = {}
        for message in self.batch:
            ends[message.partition()] = message.offset() + 1
        offsets = [TopicPartition(NUMBERS, *end) for end in ends.items()]
        _persevere(lambda: self.producer.send_offsets_to_transaction(offsets, self.metadata, 10))
        self.moments.step()
        chance = self.random.random()
        if chance < 0.1:
            self.producer.flush(10)
            raise Refused
        if chance < 0.15:
            self.producer.flush(10)
            self.account.left_open.add(attempt)
            self.succeed()
            return "left open"
        self.account.committing.add(attempt)
        _persevere(lambda: self.producer.commit_transaction(10))
        self.account.committed.add(attempt)
        self.moments.step()
        return "committed"

    def rewind(self) -> None:
        """Go back to what is committed, in the partitions of the batch that it still has."""
        has = {one.partition for one in self.consumer.assignment()}
        taken = {message.partition() for message in self.batch} & has
        if not taken:
            return
        wanted = [TopicPartition(NUMBERS, partition) for partition in taken]
        for place in _persevere(lambda: self.consumer.committed(wanted, 10)):
            assert place.error is None, place
            place.offset = max(place.offset, 0)
            self.consumer.seek(place)


def _persevere(call: Any) -> Any:
    """Call until the answer is not that it may be tried again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except KafkaException as error:
            told = error.args[0]
            can_go_on = told.retriable() or told.name() in AGAIN
            if not can_go_on or told.txn_requires_abort() or time.monotonic() > deadline:
                raise


class Ottla(Copier):
    """Our own client."""

    kind = "ottla"

    def copy(self) -> None:
        with (
            ottla.connect(self.bootstrap) as kafka,
            kafka.consumer(
                NUMBERS,
                group_id=self.account.group,
                auto_offset_reset="earliest",
                value=ottla.text(),
                max_rows=BATCH,
                max_wait=0.05,
            ) as consumer,
            contextlib.ExitStack() as producers,
        ):
            producer = producers.enter_context(_made(kafka, self.name))
            while not self.stopping.is_set():
                batch = consumer.poll(0.5)
                if batch is None or batch.num_rows == 0:
                    continue
                numbers = [int(value) for value in batch["value"].to_pylist()]
                attempt = self.attempt(numbers)
                try:
                    outcome = self._try(producer, consumer, batch, attempt, numbers)
                except (ottla.TransactionAbortedError, ottla.FencedError) as error:
                    # The consumer is back, or knows better where to go on.
                    outcome = error.name
                    assert outcome != "PRODUCER_FENCED", "nobody else has the id"
                except ottla.CommitUnknownError:
                    # The next transaction finds out.
                    outcome = "unknown"
                except Refused:
                    outcome = "aborted"
                self.outcomes[outcome] += 1
                if outcome == "left open":
                    producer = producers.enter_context(_made(kafka, self.name))

    def _try(
        self,
        producer: ottla.TransactionalProducer,
        consumer: ottla.Consumer,
        batch: ottla.RecordBatch,
        attempt: str,
        numbers: list[int],
    ) -> str:
        chance = self.random.random()
        if chance < 0.05:
            left = producer.transaction(consumer=consumer, batch=batch).__enter__()
            records = self.records(attempt, numbers)
            sent = [left.send(topic, value, partition=at) for topic, value, at in records]
            sent[-1].result(PATIENCE)
            self.account.left_open.add(attempt)
            left._rewind()
            return "left open"
        with producer.transaction(consumer=consumer, batch=batch) as tx:
            self.moments.step()
            for topic, value, partition in self.records(attempt, numbers):
                tx.send(topic, value, partition=partition)
            if chance < 0.15:
                self.account.aborted.add(attempt)
                raise Refused
            self.account.committing.add(attempt)
        self.account.committed.add(attempt)
        self.moments.step()
        return "committed"


@contextlib.contextmanager
def _made(kafka: ottla.Client, name: str) -> Iterator[ottla.TransactionalProducer]:
    producer = kafka.transactional(name)
    yield producer
    with contextlib.suppress(ottla.FencedError):
        producer.close()


class Feeder(threading.Thread):
    """Writes numbers, not far ahead of those who copy them, until it is told to stop."""

    def __init__(self, bootstrap: str, accounts: list[Account]) -> None:
        super().__init__(name="feeder", daemon=True)
        self.accounts = accounts
        self.stopping = threading.Event()
        self.sent = 0
        self.failed: list[str] = []
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 1,
                "delivery.timeout.ms": 120_000,
                **SETTINGS,
            }
        )

    def run(self) -> None:
        while not self.stopping.is_set():
            copied = min(len(account.seen) for account in self.accounts)
            if self.sent - copied < AHEAD:
                partition = self.sent % PARTITIONS
                self.producer.produce(
                    NUMBERS, str(self.sent), partition=partition, on_delivery=self._delivered
                )
                self.sent += 1
            self.producer.poll(0.002)
        if self.producer.flush(PATIENCE):
            self.failed.append("not everything was acknowledged")

    def _delivered(self, error: Any, _message: Message) -> None:
        if error is not None:
            self.failed.append(str(error))


class Reader(threading.Thread):
    """Reads what is committed, as it becomes visible."""

    def __init__(self, name: str, bootstrap: str, accounts: list[Account]) -> None:
        super().__init__(name=name, daemon=True)
        self.bootstrap = bootstrap
        self.topics = {
            topic: account for account in accounts for topic in (account.copies, account.seals)
        }
        self.stopping = threading.Event()
        self._next: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        try:
            self.watch()
        except BaseException as error:
            for account in self.topics.values():
                account.fault(f"{self.name} died: {error!r}")
            raise

    def watch(self) -> None:
        raise NotImplementedError

    def saw(self, topic: str, partition: int, offset: int, value: str) -> None:
        account = self.topics[topic]
        if offset < self._next.get((topic, partition), 0):
            account.fault(f"{self.name} read offset {offset} of {topic}-{partition} again")
        self._next[topic, partition] = offset + 1
        account.read(topic, value)


class ConfluentReader(Reader):
    def watch(self) -> None:
        settings = {"bootstrap.servers": self.bootstrap, "group.id": "none", **SETTINGS}
        settings |= {"enable.auto.commit": False, "isolation.level": "read_committed"}
        consumer = Consumer(settings)
        consumer.assign(
            [TopicPartition(topic, at, 0) for topic in self.topics for at in range(PARTITIONS)]
        )
        while not self.stopping.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            where = message.topic(), message.partition(), message.offset()
            self.saw(*where, message.value().decode())
        consumer.close()


class OttlaReader(Reader):
    def watch(self) -> None:
        columns = ["topic", "partition", "offset", "value"]
        with (
            ottla.connect(self.bootstrap) as kafka,
            kafka.consumer(
                list(self.topics), start="earliest", value=ottla.text(), columns=columns, max_wait=0
            ) as consumer,
        ):
            while not self.stopping.is_set():
                batch = consumer.poll(0.1)
                for row in [] if batch is None else batch.to_pylist():
                    self.saw(row["topic"], row["partition"], row["offset"], row["value"])


def committed(bootstrap: str, topics: Iterable[str]) -> dict[str, list[str]]:
    """Read all of these topics that is committed, up to a record that is written now."""
    found: dict[str, list[str]] = {topic: [] for topic in topics}
    producer = Producer({"bootstrap.servers": bootstrap})
    places = [TopicPartition(topic, at, 0) for topic in found for at in range(PARTITIONS)]
    for place in places:
        producer.produce(place.topic, "end", partition=place.partition)
    assert producer.flush(PATIENCE) == 0
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    consumer.assign(places)
    ended: set[tuple[str, int]] = set()
    deadline = time.monotonic() + PATIENCE
    while len(ended) < len(places):
        assert time.monotonic() < deadline, f"a transaction is still open: {ended}"
        message = consumer.poll(1)
        if message is None or message.error() is not None:
            continue
        if message.value() == b"end":
            ended.add((message.topic(), message.partition()))
        else:
            found[message.topic()].append(message.value().decode())
    consumer.close()
    return found
