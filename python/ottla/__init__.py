"""ottla: an event-streaming engine that speaks Apache Kafka and Arrow.

A broker that any Kafka client can talk to starts inside the Python process; a client moves
dataframes into topics and Arrow batches out of them, from that broker or from any Kafka cluster.
"""

from __future__ import annotations

import warnings

from ottla._ottla import Column, RecordBatch, __version__, debug_build
from ottla.errors import (
    AuthorizationError,
    ClosedError,
    ConfigError,
    ConnectionError,
    CorruptionError,
    DataLossError,
    DecodeError,
    KafkaError,
    MessageTooLargeError,
    NotSupportedError,
    OffsetOutOfRangeError,
    ProtocolError,
    StorageError,
    TimeoutError,
    TopicExistsError,
    UnknownTopicError,
)

__all__ = [
    "AuthorizationError",
    "ClosedError",
    "Column",
    "ConfigError",
    "ConnectionError",
    "CorruptionError",
    "DataLossError",
    "DecodeError",
    "KafkaError",
    "MessageTooLargeError",
    "NotSupportedError",
    "OffsetOutOfRangeError",
    "ProtocolError",
    "RecordBatch",
    "StorageError",
    "TimeoutError",
    "TopicExistsError",
    "UnknownTopicError",
    "__version__",
]

if debug_build:
    warnings.warn(
        "ottla was built without optimisations and is many times slower than a release build",
        RuntimeWarning,
        stacklevel=2,
    )
