"""The package itself."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_package_tells_its_version() -> None:
    assert ottla.__version__.count(".") == 2


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    homes = [name for names in ottla._HOMES.values() for name in names]
    modules = [home for home in ottla._HOMES if home in ottla.__all__]
    assert sorted([*homes, *modules, "__version__"]) == sorted(ottla.__all__)
    for name in ottla.__all__:
        assert getattr(ottla, name) is not None
        assert name in dir(ottla)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(ottla, "nothing_of_the_kind")


def test_all_exceptions_are_kafka_errors() -> None:
    for name in ottla.errors.__all__:
        base = UserWarning if name.endswith("Warning") else ottla.KafkaError
        assert issubclass(getattr(ottla, name), base)


def test_an_exception_survives_pickle() -> None:
    import pickle

    error = ottla.TimeoutError("too late", code=7, name="REQUEST_TIMED_OUT", retriable=True)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.name, again.retriable) == (
        "too late",
        7,
        "REQUEST_TIMED_OUT",
        True,
    )


def arguments(function: object) -> list[str]:
    """The names of the arguments that help and completion show."""
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_what_passes_arguments_on_shows_them() -> None:
    scan, write = arguments(ottla.Client.scan), arguments(ottla.Client.write)
    assert arguments(ottla.Topic.scan) == [one for one in scan if one != "topic"]
    assert arguments(ottla.Topic.write) == [one for one in write if one != "topic"]
    assert arguments(ottla.Producer.write) == write
    _self, topics, *others = arguments(ottla.Client.consumer)
    assert arguments(ottla.Consumer) == [topics, "bootstrap_servers", *others, "options"]
    assert {"group_id", "max_rows", "on_error", "timeout"} <= set(others)


def test_an_unknown_argument_is_refused_in_the_name_of_the_public_class(
    remote: ottla.Client,
) -> None:
    client: Any = remote
    consumer: Any = ottla.Consumer
    broker: Any = ottla.Broker
    refused: dict[str, Callable[[], object]] = {
        r"Client\.scan\(\)": lambda: client.scan("t", row=1),
        r"Client\.consumer\(\)": lambda: client.consumer("t", row=1),
        r"Client\.write\(\)": lambda: client["t"].write(None, row=1),
        r"Consumer\.poll\(\)": lambda: consumer.poll(None, row=1),
        r"Broker\.__init__\(\)": lambda: broker(row=1),
    }
    for name, call in refused.items():
        with pytest.raises(TypeError, match=f"^{name} got an unexpected keyword argument 'row'"):
            call()
    with pytest.raises(TypeError, match="a consumer has no argument row"):
        consumer("t", client, row=1)
