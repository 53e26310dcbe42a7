"""Topics, settings and offsets: what a client does besides reading and writing rows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from ottla._bounds import Bound, Limit, native_bound, seconds
from ottla._groups import Groups
from ottla._names import topic_name
from ottla._settings import config_items, setting_text, topic_settings
from ottla._topic import Topic
from ottla.errors import ConfigError, TopicExistsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ottla._client import Client
    from ottla._ottla import Admin

__all__ = ["Administration"]

Timeout = float | timedelta | None


class Administration:
    """The part of a :class:`Client` that creates, changes and describes."""

    _admin: Admin
    _retentions: dict[str, int | None]

    def create_topic(
        self,
        topic: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        *,
        config: Mapping[str, object] | None = None,
        assignment: Mapping[int, Sequence[int]] | None = None,
        exist_ok: bool = False,
        validate_only: bool = False,
        timeout: Timeout = 30.0,
    ) -> Topic:
        """Create a topic.

        Parameters
        ----------
        topic : str
            The name: letters, digits, ``.``, ``_`` and ``-``, at most 249 of them.
        partitions : int, optional
            The number of partitions; the broker's ``num.partitions`` by default.
        replication_factor : int, optional
            The number of copies; the broker's ``default.replication.factor`` by default.
        config : mapping of str to object, optional
            Topic settings by Kafka's names, for example ``{"retention.ms": -1}``, which may also be
            written ``retention_ms``. By default a topic deletes records whose timestamps are older
            than 7 days: for older data set ``retention.ms`` to -1.
        assignment : mapping of int to sequence of int, optional
            The brokers of each partition, instead of the two numbers above.
        exist_ok : bool, default False
            Whether to succeed when the topic already exists (whatever its settings are).
        validate_only : bool, default False
            Only check whether the topic could be created.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        Topic
            The topic.

        Raises
        ------
        TopicExistsError
            When there is a topic of that name and ``exist_ok`` is false.
        ConfigError
            When the name, a number or a setting is not valid.
        """
        if partitions is not None and (
            isinstance(partitions, bool) or not hasattr(partitions, "__index__")
        ):
            raise TypeError(f"partitions= takes a whole number, not {partitions!r}")
        if partitions is not None and partitions < 1:
            raise ConfigError(
                f"partitions={partitions}: a topic has at least one partition. Omit the argument "
                "to use the broker's num.partitions"
            )
        settings = {name: setting_text(value) for name, value in topic_settings(config).items()}
        placement = {
            int(partition): [int(node) for node in nodes]
            for partition, nodes in (assignment or {}).items()
        }
        try:
            self._admin.create_topic(
                topic_name(topic),
                partitions,
                replication_factor,
                placement,
                settings,
                validate_only,
                seconds(timeout),
            )
        except TopicExistsError:
            if not exist_ok:
                raise
        return Topic(cast("Client", self), topic)

    def delete_topic(
        self, topic: str, *, missing_ok: bool = False, timeout: Timeout = 30.0
    ) -> None:
        """Delete a topic and all its records.

        Parameters
        ----------
        topic : str
            The name.
        missing_ok : bool, default False
            Whether to succeed when there is no such topic.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Raises
        ------
        UnknownTopicError
            When there is no such topic and ``missing_ok`` is false.
        """
        from ottla.errors import UnknownTopicError

        try:
            self._admin.delete_topic(topic_name(topic), seconds(timeout))
        except UnknownTopicError:
            if not missing_ok:
                raise

    def create_partitions(self, topic: str, total: int, *, timeout: Timeout = 30.0) -> None:
        """Raise the number of partitions of a topic to ``total``.

        Existing records stay in their partitions; new records of a key may go to a different
        partition than before.

        Parameters
        ----------
        topic : str
            The name.
        total : int
            The new number of partitions, higher than the current one.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        self._admin.create_partitions(topic_name(topic), total, seconds(timeout))

    def topics(self, *, internal: bool = False, timeout: Timeout = 30.0) -> list[str]:
        """Return the names of the topics, sorted.

        Parameters
        ----------
        internal : bool, default False
            Whether to include the cluster's internal topics.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        return self._admin.topics(internal, seconds(timeout))

    def __getitem__(self, topic: str) -> Topic:
        """Return the topic object for a name, without a request to the cluster."""
        if not isinstance(topic, str):
            raise TypeError(f"the name of a topic must be a str, not {type(topic).__name__}")
        return Topic(cast("Client", self), topic)

    def __contains__(self, topic: object) -> bool:
        return topic in self.topics(internal=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self.topics())

    def configs(
        self, topic: str | None = None, *, broker: int | None = None, timeout: Timeout = 30.0
    ) -> dict[str, dict[str, Any]]:
        """Return the settings of a topic or of a broker.

        Parameters
        ----------
        topic : str, optional
            The name of a topic.
        broker : int, optional
            The id of a broker, instead of a topic.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict of str to dict
            For each setting: ``value`` (None when it is a secret), ``source`` (for
            example ``DEFAULT_CONFIG``), ``is_default``, ``read_only``, ``sensitive``,
            ``documentation``.
        """
        if (topic is None) == (broker is None):
            raise ConfigError("name either a topic or a broker")
        kind, name = ("broker", str(broker)) if topic is None else ("topic", topic_name(topic))
        return self._admin.describe_configs(kind, str(name), seconds(timeout))

    def alter_configs(
        self,
        topic: str | None = None,
        changes: Mapping[str, object] | None = None,
        *,
        broker: int | None = None,
        timeout: Timeout = 30.0,
    ) -> None:
        """Change settings of a topic or of a broker; the others stay unchanged.

        Parameters
        ----------
        topic : str, optional
            The name of a topic.
        changes : mapping of str to object
            New values by name (for a topic, ``retention_ms`` also works for ``retention.ms``);
            ``None`` resets a setting to its default.
        broker : int, optional
            The id of a broker, instead of a topic.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        if (topic is None) == (broker is None):
            raise ConfigError("name either a topic or a broker")
        kind, name = ("broker", str(broker)) if topic is None else ("topic", topic_name(topic))
        named = dict(config_items(changes)) if topic is None else topic_settings(changes)
        values = {
            setting: None if value is None else setting_text(value)
            for setting, value in named.items()
        }
        self._admin.alter_configs(kind, str(name), values, seconds(timeout))
        self._retentions.clear()

    def delete_records(
        self, topic: str, before: Mapping[int, int] | Bound = "latest", *, timeout: Timeout = 30.0
    ) -> dict[int, int]:
        """Delete the records of a topic before given offsets.

        Parameters
        ----------
        topic : str
            The name.
        before : mapping of int to int, or Bound, default "latest"
            The first offset to keep, by partition; or a time; "latest" deletes everything.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict of int to int
            The new log start offset of each partition.
        """
        limit, topic = Limit(timeout), topic_name(topic)
        kind, detail = native_bound(before, "latest", "end", topic)
        if kind == "offsets":
            offsets = detail
        else:
            offsets = self._admin.list_offsets(topic, (kind, detail), limit.left())
        return self._admin.delete_records(topic, offsets, limit.left())

    def offsets(
        self, topic: str, at: Bound = "latest", *, timeout: Timeout = 30.0
    ) -> dict[int, int]:
        """Return the offsets of a topic at a time, or at its start or end.

        Parameters
        ----------
        topic : str
            The name.
        at : Bound, default "latest"
            "earliest", "latest" (one past the last record), or a time (the first record at or after
            it; one past the last record when there is none).
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict of int to int
            The offset by partition.
        """
        bound = native_bound(at, "latest", "start")
        return self._admin.list_offsets(topic_name(topic), bound, seconds(timeout))

    def cluster(self, *, timeout: Timeout = 30.0) -> dict[str, Any]:
        """Describe the cluster.

        Returns
        -------
        dict
            ``cluster_id``, ``controller_id``, and ``brokers``: a list of dictionaries with
            ``node_id``, ``host``, ``port`` and ``rack``.
        """
        return self._admin.describe_cluster(seconds(timeout))

    @property
    def groups(self) -> Groups:
        """The consumer groups: list, describe (members, offsets, lag), reset, delete."""
        return Groups(cast("Client", self))
