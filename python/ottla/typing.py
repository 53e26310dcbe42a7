"""The types of arguments, for programs that pass them on: ``from ottla.typing import Acks``.

An editor offers the words that an argument takes, and a type checker refuses others. What they mean
is said where the arguments are; whether a word is one of them is checked there, too, since most
programs are not checked for types. The engine knows the names of settings; these are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Optional, TypedDict, Union

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    _Milliseconds = Union[int, timedelta, None]
    _Number = Optional[int]
    _Switch = Optional[bool]

__all__ = [
    "Acks",
    "AutoOffsetReset",
    "BufferCompression",
    "ClientOptions",
    "CompressionType",
    "Durability",
    "FormatName",
    "GroupProtocol",
    "IsolationLevel",
    "KeyFormatName",
    "OnDataLoss",
    "OnErrorOfRow",
    "RemoteAssignor",
    "Settings",
    "TimeUnit",
    "Until",
]

Acks = Literal["all", "-1", "0", "1", -1, 0, 1]
AutoOffsetReset = Literal["earliest", "latest", "error", "none"]
#: Of the buffers within an Arrow IPC stream.
BufferCompression = Literal["lz4", "zstd"]
CompressionType = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Durability = Literal["auto", "fsync", "os"]
FormatName = Literal["raw", "text", "json"]
GroupProtocol = Literal["classic", "consumer"]
IsolationLevel = Literal["read_committed", "read_uncommitted"]
KeyFormatName = Literal["raw", "text"]
OnDataLoss = Literal["raise", "warn"]
#: Where each record is one row that must not be missing. Elsewhere `on_error=` may also be
#: "dlq:TOPIC" for any topic, which no type can say, so it is a str there.
OnErrorOfRow = Literal["raise", "null"]
RemoteAssignor = Literal["uniform", "range"]
TimeUnit = Literal["s", "ms", "us", "ns"]
Until = Literal["caught_up"]


class Settings(TypedDict, total=False):
    """What a client can be told by name, besides who it is and where its brokers are."""

    client_rack: str | None
    security_protocol: Literal["PLAINTEXT"] | None
    request_timeout_ms: _Milliseconds
    socket_timeout_ms: _Milliseconds
    default_api_timeout_ms: _Milliseconds
    socket_connection_setup_timeout_ms: _Milliseconds
    retry_backoff_ms: _Milliseconds
    retry_backoff_max_ms: _Milliseconds
    metadata_max_age_ms: _Milliseconds
    topic_metadata_refresh_interval_ms: _Milliseconds
    allow_auto_create_topics: _Switch
    threads: _Number
    acks: Acks | None
    request_required_acks: Acks | None
    enable_idempotence: _Switch
    linger_ms: _Milliseconds
    queue_buffering_max_ms: _Milliseconds
    batch_size: _Number
    buffer_memory: _Number
    max_request_size: _Number
    message_max_bytes: _Number
    max_block_ms: _Milliseconds
    delivery_timeout_ms: _Milliseconds
    message_timeout_ms: _Milliseconds
    retries: _Number
    message_send_max_retries: _Number
    transaction_timeout_ms: _Milliseconds
    max_in_flight_requests_per_connection: _Number
    max_in_flight: _Number
    compression_type: CompressionType | None
    compression_codec: CompressionType | None
    compression_level: _Number
    compression_zstd_level: _Number
    compression_gzip_level: _Number
    compression_lz4_level: _Number
    fetch_min_bytes: _Number
    fetch_max_bytes: _Number
    max_partition_fetch_bytes: _Number
    fetch_message_max_bytes: _Number
    fetch_max_wait_ms: _Milliseconds
    fetch_wait_max_ms: _Milliseconds
    isolation_level: IsolationLevel | None
    check_crcs: _Switch
    auto_offset_reset: AutoOffsetReset | None
    queued_max_bytes: _Number
    queued_max_messages_kbytes: _Number


class ClientOptions(Settings, total=False):
    """The keyword arguments of :func:`ottla.connect`."""

    client_id: str | None
    config: Mapping[str, object] | None
