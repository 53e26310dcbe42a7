"""The broker for other people's tests."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, Producer

import ottla
import ottla.testing

pytest_plugins = ["pytester"]


def test_any_client_reaches_the_broker_of_a_test(ottla_broker: ottla.Broker) -> None:
    servers = {"bootstrap.servers": ottla_broker.bootstrap_servers}
    producer = Producer(servers)
    producer.produce("words", b"one")
    assert producer.flush(30) == 0
    from confluent_kafka import TopicPartition

    consumer = Consumer(servers | {"group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition("words", 0, 0)])
    message = consumer.poll(30)
    consumer.close()
    assert message.value() == b"one"


@pytest.mark.parametrize("time_", [1, 2])
def test_each_test_has_a_broker_of_its_own(ottla_client: ottla.Client, time_: int) -> None:
    assert ottla_client.topics() == []
    ottla_client.send("words", str(time_))


@pytest.mark.ottla(topics={"orders": 3}, config={"num.partitions": 5})
def test_the_marker_makes_topics_and_settings(ottla_client: ottla.Client) -> None:
    assert ottla_client["orders"].num_partitions == 3
    ottla_client.create_topic("others")
    assert ottla_client["others"].num_partitions == 5


def test_a_broker_is_there_in_milliseconds() -> None:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        with ottla.testing.broker():
            took.append(time.perf_counter() - start)
    # A build without optimisations on a busy machine gets more time than the 4 ms it takes.
    assert min(took) < 0.5


def test_other_projects_need_no_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.ottla(topics={"a": 2})
        class TestBroker:
            @pytest.mark.ottla(topics={"b": 1})
            def test_markers_add_up(self, ottla_client):
                assert ottla_client.topics() == ["a", "b"]

        @pytest.mark.ottla("a")
        def test_wrong_marker(ottla_broker):
            pass
        """
    )
    result = pytester.runpytest_subprocess(
        "--strict-markers", "-p", "no:cacheprovider", "-W", "ignore:ottla was built"
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the marker is ottla(config=*"])
