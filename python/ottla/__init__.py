"""ottla: an event-streaming engine that speaks Apache Kafka and Arrow.

A broker that any Kafka client can talk to starts inside the Python process; a client moves
dataframes into topics and Arrow batches out of them, from that broker or from any Kafka cluster.
"""

from __future__ import annotations

import warnings

from ottla import sql_offsets
from ottla._bounds import timestamp, ts
from ottla._broker import Broker
from ottla._client import Client, connect
from ottla._consumer import Consumer
from ottla._offsets import delta_offsets
from ottla._ottla import Column, Pending, RecordBatch, RecordMetadata, __version__, debug_build
from ottla._producer import Producer
from ottla._scan import Scan
from ottla._topic import Topic
from ottla.errors import (
    AuthorizationError,
    ClosedError,
    ConfigError,
    ConnectionError,
    CorruptionError,
    DataLossError,
    DecodeError,
    FencedError,
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
from ottla.formats import Format, json, raw, text

__all__ = [
    "AuthorizationError",
    "Broker",
    "Client",
    "ClosedError",
    "Column",
    "ConfigError",
    "ConnectionError",
    "Consumer",
    "CorruptionError",
    "DataLossError",
    "DecodeError",
    "FencedError",
    "Format",
    "KafkaError",
    "MessageTooLargeError",
    "NotSupportedError",
    "OffsetOutOfRangeError",
    "Pending",
    "Producer",
    "ProtocolError",
    "RecordBatch",
    "RecordMetadata",
    "Scan",
    "StorageError",
    "TimeoutError",
    "Topic",
    "TopicExistsError",
    "UnknownTopicError",
    "__version__",
    "connect",
    "delta_offsets",
    "json",
    "raw",
    "sql_offsets",
    "text",
    "timestamp",
    "ts",
]

if debug_build:
    warnings.warn(
        "ottla was built without optimisations and is many times slower than a release build",
        RuntimeWarning,
        stacklevel=2,
    )
