"""From ``produce`` to ``consume``: how long a message takes at a steady rate."""

from __future__ import annotations

import struct
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition

from versus.servers import create_topic, delete_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from versus.measure import Results
    from versus.servers import Server

SIZE = 100


def one_run(server: Server, rate: int, seconds: float) -> list[float]:
    """Return the latencies in milliseconds, sorted; the first half second is left out."""
    topic = f"latency-{rate}-{time.monotonic_ns()}"
    create_topic(server, topic, 1)
    count = int(rate * seconds)
    consumer = Consumer(
        {"bootstrap.servers": server.bootstrap, "group.id": "latency", "fetch.wait.max.ms": 100}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    producer = Producer({"bootstrap.servers": server.bootstrap, "acks": "all", "linger.ms": 0})
    latencies: list[float] = []

    def receive() -> None:
        while len(latencies) < count:
            message = consumer.poll(10)
            if message is None or message.error():
                return
            sent = struct.unpack_from("<q", message.value())[0]
            latencies.append((time.perf_counter_ns() - sent) / 1e6)

    receiver = threading.Thread(target=receive)
    receiver.start()
    begin, padding = time.perf_counter(), bytes(SIZE - 8)
    for number in range(count):
        due = begin + number / rate
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        producer.poll(0)
        producer.produce(topic, struct.pack("<q", time.perf_counter_ns()) + padding)
    producer.flush(30)
    receiver.join(60)
    consumer.close()
    delete_topic(server, topic)
    assert len(latencies) == count, f"{len(latencies)} of {count} messages came back"
    return sorted(latencies[rate // 2 :])


def produce_to_consume(
    results: Results, servers: Sequence[Server], seconds: float, where: str = ""
) -> None:
    """One round at 500 and at 5,000 messages a second; ``where`` goes before the names."""
    for rate in (500, 5000):
        for server in servers:
            found = one_run(server, rate, seconds)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
                value = found[min(int(len(found) * share), len(found) - 1)]
                what = f"{where}produce to consume, {rate}/s, acks=all: {name}, ms"
                results.add(what, server.name, value, lower=True)
