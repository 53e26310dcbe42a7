"""Topics, their settings and their offsets."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

import ottla


def test_a_topic_is_there_until_it_is_deleted(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=3, config={"retention.ms": -1})
    assert name in kafka
    assert name in kafka.topics()
    assert kafka[name].num_partitions == 3
    assert kafka[name].config["retention.ms"] == "-1"
    kafka.delete_topic(name)
    assert name not in kafka
    with pytest.raises(ottla.UnknownTopicError, match=name):
        kafka.delete_topic(name)
    kafka.delete_topic(name, missing_ok=True)


def test_a_second_creation_is_refused_unless_allowed(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.TopicExistsError, match=name) as caught:
        kafka.create_topic(name)
    assert (caught.value.code, caught.value.name) == (36, "TOPIC_ALREADY_EXISTS")
    assert not caught.value.retriable
    assert kafka.create_topic(name, exist_ok=True) == kafka[name]


def test_validate_only_creates_nothing(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, validate_only=True)
    assert name not in kafka
    with pytest.raises(ottla.ConfigError):
        kafka.create_topic(name, config={"retention.mss": 1}, validate_only=True)


@pytest.mark.parametrize("bad", ["", "..", "a/b", "../up", "x" * 250, "spa ce"])
def test_a_bad_name_is_refused(kafka: ottla.Client, bad: str) -> None:
    with pytest.raises(ottla.ConfigError):
        kafka.create_topic(bad)


def test_settings_change_and_go_back(kafka: ottla.Client, name: str) -> None:
    topic = kafka.create_topic(name)
    before = kafka.configs(name)["segment.ms"]
    assert before["is_default"]
    assert before["documentation"]
    topic.alter_config(segment_ms=60_000)
    assert kafka.configs(name)["segment.ms"]["value"] == "60000"
    kafka.alter_configs(name, {"segment.ms": None})
    assert kafka.configs(name)["segment.ms"] == before
    # Written as a keyword everywhere.
    kafka.alter_configs(name, {"segment_ms": 61_000})
    kafka.create_topic(f"{name}.too", config={"segment_ms": 61_000})
    for one in (name, f"{name}.too"):
        assert kafka.configs(one)["segment.ms"]["value"] == "61000"
    with pytest.raises(ottla.ConfigError):
        topic.alter_config(no_such_setting=1)


def test_partitions_only_grow(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=2)
    kafka.create_partitions(name, 5)
    assert kafka[name].num_partitions == 5
    with pytest.raises(ottla.ConfigError):
        kafka.create_partitions(name, 3)


def test_offsets_follow_time(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    start = datetime(2024, 5, 1, tzinfo=timezone.utc)
    for hour in range(4):
        kafka.send(name, str(hour), timestamp=start + timedelta(hours=hour))
    assert kafka.offsets(name) == {0: 4}
    assert kafka.offsets(name, "earliest") == {0: 0}
    assert kafka.offsets(name, start + timedelta(minutes=90)) == {0: 2}
    # Naive is UTC, a text is ISO 8601, and beyond the last record is the end.
    assert kafka.offsets(name, datetime(2024, 5, 1, 3)) == {0: 3}  # noqa: DTZ001
    assert kafka.offsets(name, "2024-05-01T01:00:00Z") == {0: 1}
    assert kafka.offsets(name, "2030-01-01") == {0: 4}


def test_deleted_records_are_out_of_range(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    for number in range(10):
        kafka.send(name, str(number))
    whole = kafka.scan(name)
    assert kafka.delete_records(name, {0: 6}) == {0: 6}
    assert kafka.scan(name).offsets == {0: (6, 10)}
    with pytest.raises(ottla.KafkaError, match=f"{name}-0"):
        whole.count()
    assert kafka.delete_records(name) == {0: 10}


def test_a_topic_describes_itself(kafka: ottla.Client, name: str) -> None:
    topic = kafka.create_topic(name, partitions=2, config={"max.message.bytes": 2_000_000})
    kafka.send(name, "x" * 1000, partition=1)
    described = topic.describe()
    assert described["name"] == name
    assert len(described["topic_id"]) == 22
    assert [one["end"] for one in described["partitions"]] == [0, 1]
    assert described["partitions"][1]["size_bytes"] > 1000
    picture = topic._repr_html_()
    assert "max.message.bytes" in picture
    assert "<table>" in picture
    assert repr(topic) == f"<ottla.Topic {name}>"


def test_the_cluster_describes_itself(kafka: ottla.Client, broker: ottla.Broker) -> None:
    cluster = kafka.cluster()
    assert cluster.cluster_id == broker.cluster_id
    ports = {one.port for one in cluster.brokers}
    assert int(broker.bootstrap_servers.rsplit(":")[-1]) in ports


def test_an_unknown_setting_comes_with_a_suggestion(broker: ottla.Broker) -> None:
    with pytest.raises(ottla.ConfigError, match=r"linger\.ms"):
        ottla.connect(broker.bootstrap_servers, linger_m=5)  # type: ignore[call-arg]
    with pytest.raises(ottla.ConfigError, match="num"):
        ottla.Broker(config={"num.partition": 3})


def test_what_comes_later_is_refused_clearly() -> None:
    with pytest.raises(NotImplementedError):
        ottla.connect("localhost:9092", sasl_mechanism="PLAIN")  # type: ignore[call-arg]
