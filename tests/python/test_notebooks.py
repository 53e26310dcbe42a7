"""What a notebook shows and completes, and how its cells run again."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path


def headings(picture: str) -> list[str]:
    return [name.partition(":")[0] for name in re.findall(r"<th>(.*?)</th>", picture)]


def cells(picture: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", picture)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_the_columns_of_the_values_come_first(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, {"city": "Rome", "people": 3}, key="a")
    batch = kafka.scan(name, value={"people": "int64", "city": "utf8"}).head()
    picture = batch._repr_html_()
    assert headings(picture)[:3] == ["people", "city", "topic"]
    assert cells(picture)[:2] == ["3", "Rome"], "below their headings"
    assert sorted(headings(picture)) == sorted(batch.column_names)
    kafka.send(f"{name}.own", {"offset": 7})
    own = kafka.scan(f"{name}.own", value={"offset": "int64"}).head()
    assert headings(own._repr_html_())[0] == "offset"
    assert headings(kafka.scan(name).head()._repr_html_())[0] == "value"


def test_a_client_shows_topics_and_completes_them() -> None:
    with ottla.Broker() as broker:
        kafka = broker.client()
        for number in range(25):
            kafka.create_topic(f"topic<{number}".replace("<", "-"), partitions=2)
        kafka.groups.reset("etl", "topic-0", "earliest")
        picture = kafka._repr_html_()
        assert "1 brokers, 25 topics" in picture
        assert cells(picture)[:4] == ["topic-0", "2", "1", "ok"]
        assert "… 5 more" in picture
        assert "__consumer_offsets" not in picture
        assert kafka._ipython_key_completions_() == kafka.topics()
        assert kafka.groups._ipython_key_completions_() == ["etl"]
        assert cells(kafka.groups._repr_html_())[:2] == ["etl", "Empty"]
        shown = broker._repr_html_()
        assert "running" in shown
        assert broker.bootstrap_servers in shown
    for closed in (broker, kafka, kafka.groups):
        assert "closed" in closed._repr_html_()
    assert kafka._ipython_key_completions_() == []


def test_a_cluster_that_does_not_answer_is_shown_as_that() -> None:
    with ottla.connect(f"127.0.0.1:{free_port()}") as kafka:
        assert kafka._ipython_key_completions_() == []
        assert kafka.groups._ipython_key_completions_() == []
        assert "127.0.0.1" in kafka._repr_html_()
        assert "127.0.0.1" in kafka.groups._repr_html_()


def test_a_broker_takes_a_port(tmp_path: Path) -> None:
    port = free_port()
    with ottla.Broker(tmp_path, port=port) as broker:
        assert f"127.0.0.1:{port}" in broker.bootstrap_servers.split(",")
        with ottla.connect(f"localhost:{port}") as kafka:
            kafka.send("words", "one")
        # The cell runs again.
        assert ottla.Broker(tmp_path, port=port, reuse=True) is broker
        with pytest.raises(ottla.ConfigError, match="started with listeners"):
            ottla.Broker(tmp_path, port=port + 1, reuse=True)
        with pytest.raises(ottla.ConnectionError, match=str(port)):
            ottla.Broker(port=port)
    with pytest.raises(ottla.ConfigError, match="either port= or listeners="):
        ottla.Broker(port=port, listeners="PLAINTEXT://localhost:0")
    with pytest.raises(ottla.ConfigError, match="from 1 to 65535"):
        ottla.Broker(port=0)
    with pytest.raises(TypeError, match="port= takes a whole number"):
        ottla.Broker(port="9092")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"port": 9092}, {"listeners": "PLAINTEXT://localhost:9093"}),
        ({"listeners": "PLAINTEXT://localhost:0"}, {"listeners": "PLAINTEXT://127.0.0.1:0"}),
        ({"durability": "os"}, {"durability": "fsync"}),
        ({"tier": "s3://bucket/a"}, {"ottla.tier.url": "s3://bucket/b"}),
        ({"tier": "s3://bucket/a"}, {"remote.log.storage.system.enable": False}),
    ],
)
def test_two_values_of_one_setting_are_refused(
    options: dict[str, Any], config: dict[str, Any]
) -> None:
    with pytest.raises(ottla.ConfigError, match="two values of one setting"):
        ottla.Broker(config=config, **options)


def test_one_value_may_be_given_twice(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "listeners": "PLAINTEXT://127.0.0.1:0",
        "durability": "os",
        "tier": tmp_path / "tier",
    }
    config = {
        "listeners": options["listeners"],
        "durability": "os",
        "remote.log.storage.system.enable": True,
        "ottla.tier.url": str(tmp_path / "tier"),
    }
    with ottla.Broker(config=config, **options) as broker:
        assert not broker.closed


def test_twins_for_asyncio_do_not_hold_up_the_loop(kafka: ottla.Client, name: str) -> None:
    async def both() -> list[str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        topic = await kafka.create_topic_async(name, partitions=2)
        assert isinstance(topic, ottla.Topic)
        before = ticks
        with pytest.raises(ottla.TopicExistsError):
            await kafka.create_topic_async(name)
        assert ticks > before
        assert await kafka.write_async(name, [{"id": 1}], partition=1) == 1
        scan = await kafka.scan_async(name, value="json")
        rows = [row["id"] for batch in [one async for one in scan] for row in batch]
        ticking.cancel()
        assert rows == [1]
        return await kafka.topics_async()

    assert name in asyncio.run(both())


def test_each_twin_takes_the_arguments_of_its_method() -> None:
    import inspect

    found = 0
    for whole in (ottla.Client, ottla.Groups):
        for twin in dir(whole):
            plain = getattr(whole, twin.removesuffix("_async"))
            if not twin.endswith("_async") or twin == "send_async":
                continue
            found += 1
            method = getattr(whole, twin)
            assert inspect.iscoroutinefunction(method)
            assert inspect.signature(method).parameters == inspect.signature(plain).parameters
            assert method.__qualname__ == f"{whole.__name__}.{twin}"
            assert f":meth:`{plain.__name__}`" in (method.__doc__ or "")
            assert "Cancelling only stops the waiting" in (method.__doc__ or "")
    assert found == 16
