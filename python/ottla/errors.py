"""The exceptions of ottla: one tree under :class:`KafkaError`.

Every exception says what was attempted, on which topic, partition and offset, and what may help.
``code`` is the number of the error in the Kafka protocol, ``name`` its name there, and
``retriable`` whether the same call may succeed when repeated.
"""

from __future__ import annotations

import builtins

__all__ = [
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
]


class KafkaError(Exception):
    """Something went wrong; the base of all exceptions of ottla.

    Parameters
    ----------
    message : str
        What was attempted, where, and what may help.
    code : int, default -1
        The error code of the Kafka protocol; -1 (``UNKNOWN_SERVER_ERROR``) for others.
    name : str, default "UNKNOWN_SERVER_ERROR"
        The name of the code in the Kafka protocol.
    retriable : bool, default False
        Whether the same call may succeed when repeated.

    Examples
    --------
    >>> import ottla
    >>> issubclass(ottla.TimeoutError, ottla.KafkaError)
    True
    """

    code: int
    name: str
    retriable: bool
    #: After a failed ``client.write``: how many rows were acknowledged, …
    written: int | None = None
    #: … and their offsets by partition, end exclusive; records of other producers may be in
    #: between.
    offsets: dict[int, tuple[int, int]] | None = None

    def __init__(
        self,
        message: str = "",
        *,
        code: int = -1,
        name: str = "UNKNOWN_SERVER_ERROR",
        retriable: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.retriable = retriable

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, dict(vars(self)))


class AuthorizationError(KafkaError):
    """The cluster refuses this client or this operation."""


class ClosedError(KafkaError):
    """The broker, client, consumer or producer was closed; open a new one."""


class ConfigError(KafkaError, ValueError):
    """An argument, a setting or the name of a topic is not acceptable."""


class ConnectionError(KafkaError, builtins.ConnectionError):
    """A broker could not be reached, or a connection to it broke."""


class DataLossError(KafkaError):
    """Records that a scan or consumer should read no longer exist."""


class DecodeError(KafkaError, ValueError):
    """A record does not match its format."""


class FencedError(KafkaError):
    """Somebody else has taken over: another member of the group, or another run of the program."""


class LateRowError(KafkaError):
    """A row came to a window that had been closed; see ``client.windows``."""


class MessageTooLargeError(KafkaError):
    """A record is larger than ``max.message.bytes`` of the topic or ``max.request.size``."""


class NotSupportedError(KafkaError, NotImplementedError):
    """The other side, or this version of ottla, does not support this."""


class OffsetOutOfRangeError(KafkaError):
    """An offset is before the first or after the last record of its partition."""


class ProtocolError(KafkaError):
    """The other side does not follow the Kafka protocol."""


class StorageError(KafkaError):
    """A disk failed or is full, or a data directory is in use or from a newer release."""


class CorruptionError(StorageError):
    """Bytes on disk are not what was written; the message names the file and the position."""


class TimeoutError(KafkaError, builtins.TimeoutError):
    """A call did not finish within its timeout."""


class TopicExistsError(KafkaError):
    """A topic of this name already exists; see ``create_topic(exist_ok=True)``."""


class TransactionError(KafkaError):
    """A transaction went wrong: close the producer, and make another one."""


class CommitUnknownError(TransactionError):
    """A commit was not answered: nobody knows whether the transaction was committed.

    The next transaction of the same producer finds out before it begins. A program that goes on
    without one makes a new producer and a new consumer, which continues where the group is.
    """


class TransactionAbortedError(TransactionError):
    """A transaction was aborted: nothing of it is visible, and its consumer is back before it.

    ``__cause__`` says why. To do its work again, ask the consumer for the next batch, which is the
    same one.
    """


class UnknownTopicError(KafkaError, LookupError):
    """There is no such topic or partition."""


class RetentionWarning(UserWarning):
    """Records are older than their topic's retention: they will be deleted soon."""


def say_written(error: BaseException, rows: int, offsets: dict[int, tuple[int, int]]) -> None:
    """Add to an exception of ``client.write`` what was acknowledged before it."""
    error.written = rows  # type: ignore[attr-defined]
    error.offsets = offsets  # type: ignore[attr-defined]
    if not rows:
        return
    spans = ", ".join(f"{one}: [{start}, {end})" for one, (start, end) in offsets.items())
    where = f" (partition and offsets: {spans})" if spans else ""
    count = f"{rows:,} row was" if rows == 1 else f"{rows:,} rows were"
    told = f"{count} acknowledged before{where}"
    if isinstance(error, KafkaError):
        error.args = (f"{error}; {told}",)
    elif hasattr(error, "add_note"):  # From Python 3.11 on.
        error.add_note(told)
