"""A broker whose tier is a bucket, in a server that speaks S3's protocol."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

import ottla
from test_tier_broker import Node, await_that, fill, read_confluent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


class Bucket:
    """A server with a bucket; what it holds survives when it is away."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        # What it holds is that of the process.
        self._request("POST", "/moto-api/reset")

    def _request(self, method: str, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        return text

    def create(self) -> None:
        self._request("PUT", "/bucket")

    def list(self) -> str:
        return self._request("GET", "/bucket?list-type=2")

    def go_away(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port)
        self._server.start()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield bucket
    bucket.go_away()


@pytest.fixture
def node(tmp_path: Path, bucket: Bucket) -> Iterator[Node]:  # noqa: ARG001 (its environment)
    node = Node(tmp_path, "s3://bucket/some/prefix")
    yield node
    if node.process.process.poll() is None:
        node.process.stop()


def test_consumers_read_what_only_the_bucket_has(bucket: Bucket, node: Node) -> None:
    bucket.create()
    node.create("orders")
    records = fill(node, "orders", 700, "zstd")
    start = node.wait_tiered("orders")
    listed = bucket.list()
    assert "some/prefix/topic=orders/partition=0/" in listed
    assert "some/prefix/_ottla/cluster.json" in listed
    assert read_confluent(node, "orders", 700) == records
    assert read_confluent(node, "orders", 700, start - 50) == records[start - 50 :]
    node.process.kill()
    node.start()
    records += fill(node, "orders", 300, first=700)
    assert node.wait_tiered("orders") > start
    assert read_confluent(node, "orders", 1000) == records
    node.delete("orders")
    await_that(lambda: ".parquet" not in bucket.list(), node.log)


def test_producers_do_not_wait_for_a_bucket_that_is_away(bucket: Bucket, node: Node) -> None:
    # There is none yet, and the broker serves.
    node.create("orders")
    records = fill(node, "orders", 700)
    assert read_confluent(node, "orders", 700) == records
    assert len(node.segments("orders")) > 4
    await_that(lambda: "s3://bucket/some/prefix" in node.log(), node.log)
    bucket.create()
    start = node.wait_tiered("orders")
    assert read_confluent(node, "orders", 700) == records

    bucket.go_away()
    records += fill(node, "orders", 700, first=700)
    assert read_confluent(node, "orders", 1400, start) == records[start:]
    assert len(node.segments("orders")) > 4
    bucket.come_back()
    node.wait_tiered("orders")
    assert read_confluent(node, "orders", 1400) == records


def test_a_bucket_of_another_cluster_is_refused(bucket: Bucket, node: Node, tmp_path: Path) -> None:
    bucket.create()
    node.create("orders")
    fill(node, "orders", 300)
    node.wait_tiered("orders")
    (tmp_path / "other").mkdir()
    with pytest.raises(RuntimeError, match="cluster"):
        Node(tmp_path / "other", "s3://bucket/some/prefix")


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    for place in ["s3://", "ftp://host/folder", "https://example.com/x"]:
        with pytest.raises(ottla.ConfigError, match=place):
            ottla.Broker(tmp_path / "data", tier=place)
