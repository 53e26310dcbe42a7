"""The package itself."""

from __future__ import annotations

import ottla


def test_the_package_tells_its_version() -> None:
    assert ottla.__version__.count(".") == 2


def test_all_exceptions_are_kafka_errors() -> None:
    for name in ottla.errors.__all__:
        assert issubclass(getattr(ottla, name), ottla.KafkaError)


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
