"""ottla: an event-streaming engine that speaks Apache Kafka and Arrow.

A broker that any Kafka client can connect to runs inside the Python process; a client writes
dataframes to topics and reads Arrow batches from them, with that broker or any Kafka cluster.

Both write to Python's ``logging``, with the loggers ``ottla.client`` and ``ottla.broker``. For
example, ``logging.getLogger("ottla").setLevel("DEBUG")`` shows attempts that failed and were
retried; level 5 shows everything. At ``INFO`` and above there are no messages about single records.
"""

from __future__ import annotations

import warnings

from ottla._ottla import __version__, debug_build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ottla import sql_offsets
    from ottla._bounds import timestamp, ts
    from ottla._broker import Broker
    from ottla._client import Client, connect
    from ottla._cluster import Cluster
    from ottla._consumer import Consumer
    from ottla._description import ClusterDescription
    from ottla._groups import GroupDescription, Groups
    from ottla._offsets import delta_offsets
    from ottla._ottla import Column, Pending, RecordBatch, RecordMetadata
    from ottla._producer import Producer
    from ottla._registry import SchemaRegistry
    from ottla._scan import Scan
    from ottla._tier import TopicTier
    from ottla._topic import Topic
    from ottla._topic_table import Changes, Table
    from ottla._transactions import Transaction, TransactionalProducer
    from ottla._watching import TopicWatch
    from ottla._windows import Window, Windows
    from ottla.errors import (
        AuthorizationError,
        ClosedError,
        CommitUnknownError,
        ConfigError,
        ConnectionError,
        CorruptionError,
        DataLossError,
        DecodeError,
        FencedError,
        KafkaError,
        LateRowError,
        MessageTooLargeError,
        NotSupportedError,
        OffsetOutOfRangeError,
        ProtocolError,
        RetentionWarning,
        StorageError,
        TimeoutError,
        TopicExistsError,
        TransactionAbortedError,
        TransactionError,
        UnknownTopicError,
    )
    from ottla.formats import (
        Format,
        Header,
        arrow_ipc,
        avro,
        debezium,
        header,
        json,
        protobuf,
        raw,
        text,
    )

__all__ = [
    "AuthorizationError",
    "Broker",
    "Changes",
    "Client",
    "ClosedError",
    "Cluster",
    "ClusterDescription",
    "Column",
    "CommitUnknownError",
    "ConfigError",
    "ConnectionError",
    "Consumer",
    "CorruptionError",
    "DataLossError",
    "DecodeError",
    "FencedError",
    "Format",
    "GroupDescription",
    "Groups",
    "Header",
    "KafkaError",
    "LateRowError",
    "MessageTooLargeError",
    "NotSupportedError",
    "OffsetOutOfRangeError",
    "Pending",
    "Producer",
    "ProtocolError",
    "RecordBatch",
    "RecordMetadata",
    "RetentionWarning",
    "Scan",
    "SchemaRegistry",
    "StorageError",
    "Table",
    "TimeoutError",
    "Topic",
    "TopicExistsError",
    "TopicTier",
    "TopicWatch",
    "Transaction",
    "TransactionAbortedError",
    "TransactionError",
    "TransactionalProducer",
    "UnknownTopicError",
    "Window",
    "Windows",
    "__version__",
    "arrow_ipc",
    "avro",
    "connect",
    "debezium",
    "delta_offsets",
    "header",
    "json",
    "protobuf",
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

# The module of each public name. It is imported on first use, so that the command line, which needs
# none of them, starts quickly and stays small.
_HOMES = {
    "_bounds": ("timestamp", "ts"),
    "_broker": ("Broker",),
    "_client": ("Client", "connect"),
    "_cluster": ("Cluster",),
    "_consumer": ("Consumer",),
    "_description": ("ClusterDescription",),
    "_groups": ("GroupDescription", "Groups"),
    "_offsets": ("delta_offsets",),
    "_ottla": ("Column", "Pending", "RecordBatch", "RecordMetadata"),
    "_producer": ("Producer",),
    "_registry": ("SchemaRegistry",),
    "_scan": ("Scan",),
    "_tier": ("TopicTier",),
    "_topic": ("Topic",),
    "_topic_table": ("Changes", "Table"),
    "_transactions": ("Transaction", "TransactionalProducer"),
    "_watching": ("TopicWatch",),
    "_windows": ("Window", "Windows"),
    "errors": (
        "AuthorizationError",
        "ClosedError",
        "CommitUnknownError",
        "ConfigError",
        "ConnectionError",
        "CorruptionError",
        "DataLossError",
        "DecodeError",
        "FencedError",
        "KafkaError",
        "LateRowError",
        "MessageTooLargeError",
        "NotSupportedError",
        "OffsetOutOfRangeError",
        "ProtocolError",
        "RetentionWarning",
        "StorageError",
        "TimeoutError",
        "TopicExistsError",
        "TransactionAbortedError",
        "TransactionError",
        "UnknownTopicError",
    ),
    "formats": (
        "Format",
        "Header",
        "arrow_ipc",
        "avro",
        "debezium",
        "header",
        "json",
        "protobuf",
        "raw",
        "text",
    ),
    "sql_offsets": (),
    "typing": (),
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and knows what does not exist

    def __getattr__(name: str) -> object:
        from importlib import import_module

        for home, names in _HOMES.items():
            if name == home:
                return import_module(f"ottla.{home}")
            if name in names:
                value = getattr(import_module(f"ottla.{home}"), name)
                globals()[name] = value
                return value
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
