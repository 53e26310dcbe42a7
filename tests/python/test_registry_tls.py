"""The schema registry over TLS, with an authority that is made for the test."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import trustme

import ottla
from registries import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": None}]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def pem(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the authority."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(found)
    return found


@pytest.fixture
def secured(authority: trustme.CA) -> Iterator[Registry]:
    with Registry(tls=context(authority)) as registry:
        yield registry


def write(kafka: ottla.Client, topic: str, value: ottla.Format) -> None:
    assert kafka.write(topic, pa.Table.from_pylist(ROWS), value=value, partition=0) == 2


def read(kafka: ottla.Client, topic: str, value: ottla.Format) -> list[dict[str, object]]:
    return kafka.scan(topic, value=value, columns=["id", "name"]).head().to_pylist()


@pytest.mark.parametrize("format_", [ottla.avro, ottla.protobuf])
def test_a_registry_with_a_certificate_of_a_given_authority(
    kafka: ottla.Client,
    name: str,
    secured: Registry,
    pem: Path,
    format_: Callable[..., ottla.Format],
) -> None:
    known = ottla.SchemaRegistry(secured.url, ca=pem)
    write(kafka, name, format_(registry=known))
    as_settings = {"url": secured.url, "ssl.ca.location": str(pem)}
    for given in (known, ottla.SchemaRegistry(secured.url, ca=str(pem)), as_settings):
        assert read(kafka, name, format_(registry=given)) == ROWS
    assert secured.refused == []


def test_an_authority_that_nobody_knows_is_refused_at_once(
    kafka: ottla.Client, name: str, secured: Registry, tmp_path: Path
) -> None:
    stranger = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    kafka.create_topic(name)
    for given in (secured.url, ottla.SchemaRegistry(secured.url, ca=stranger)):
        with pytest.raises(
            ottla.ConnectionError, match=rf"{name}-value.*{secured.url}.*trusted authority.*ca="
        ):
            kafka.scan(name, value=ottla.avro(registry=given)).head()
    assert secured.requests == []
    # It is not asked four times.
    assert len(secured.refused) <= 2


def test_a_certificate_of_another_name_is_refused(
    kafka: ottla.Client, name: str, authority: trustme.CA, pem: Path
) -> None:
    kafka.create_topic(name)
    with Registry(tls=context(authority, "registry.example")) as other:
        known = ottla.SchemaRegistry(other.url, ca=pem)
        with pytest.raises(ottla.ConnectionError, match=rf"{other.url}.*other names"):
            kafka.scan(name, value=ottla.avro(registry=known)).head()
        assert other.requests == []


def test_another_url_is_tried_when_one_is_not_trusted(
    kafka: ottla.Client, name: str, secured: Registry, pem: Path
) -> None:
    with Registry(tls=context(trustme.CA())) as stranger:
        known = ottla.SchemaRegistry(f"{stranger.url},{secured.url}", ca=pem)
        write(kafka, name, ottla.avro(registry=known))
        assert read(kafka, name, ottla.avro(registry=known)) == ROWS
        assert stranger.requests == []


def test_a_user_and_a_token_over_tls(
    kafka: ottla.Client, name: str, authority: trustme.CA, pem: Path
) -> None:
    with Registry(user=("key", "s3cret"), tls=context(authority)) as registry:
        known = ottla.SchemaRegistry(registry.url, username="key", password="s3cret", ca=pem)
        write(kafka, name, ottla.avro(registry=known))
        assert read(kafka, name, ottla.avro(registry=known)) == ROWS
        with pytest.raises(ottla.AuthorizationError, match="401"):
            read(kafka, name, ottla.avro(registry=ottla.SchemaRegistry(registry.url, ca=pem)))
    with Registry(token="t0ken", tls=context(authority), first_id=7) as registry:
        known = ottla.SchemaRegistry(registry.url, token="t0ken", ca=pem)
        write(kafka, f"{name}.token", ottla.avro(registry=known))
        assert read(kafka, f"{name}.token", ottla.avro(registry=known)) == ROWS


def test_https_where_http_is_spoken(kafka: ottla.Client, name: str, registry: Registry) -> None:
    kafka.create_topic(name)
    url = registry.url.replace("http:", "https:")
    with pytest.raises(ottla.ConnectionError, match=rf"{url}.*TLS"):
        kafka.scan(name, value=ottla.avro(registry=url)).head()


def test_certificates_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(ottla.ConfigError, match="no certificate"):
        ottla.SchemaRegistry("https://localhost", ca=empty)
    with pytest.raises(FileNotFoundError):
        ottla.SchemaRegistry("https://localhost", ca=tmp_path / "missing.pem")
