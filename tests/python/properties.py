"""What the tests of properties share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import ottla

_topics = itertools.count()

#: The settings of a property; each module says how many examples it takes.
SLOW = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def send(kafka: ottla.Client, values: list[bytes]) -> str:
    """Send values to a new topic, and return its name."""
    topic = f"sent-{next(_topics)}"
    kafka.create_topic(topic)
    for value in values:
        kafka.send_async(topic, value)
    kafka.flush(30)
    return topic
