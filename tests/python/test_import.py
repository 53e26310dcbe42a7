"""The package itself."""

from __future__ import annotations

import ottla


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
