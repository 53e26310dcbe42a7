"""Settings, offsets and groups: what a client does besides reading and writing rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla._aio import in_thread
from ottla._bounds import Bound, Limit, native_bound, seconds
from ottla._connection import Connection
from ottla._description import ClusterDescription
from ottla._frames import html_table
from ottla._groups import Groups
from ottla._names import topic_name
from ottla._settings import config_items, setting_text, topic_settings
from ottla.errors import ConfigError, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla._connection import Timeout
    from ottla._description import ClusterPartition

__all__ = ["Administration"]

#: How long something waits that only shows what is there, in seconds.
_GLANCE_SECONDS = 3.0
#: How many topics are shown.
_SHOWN_MAX = 20


class Administration(Connection):
    """The part of a :class:`Client` that describes and changes what is there."""

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
        kind, detail = native_bound(before, "latest", "end", topic, name="before")
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
        bound = native_bound(at, "latest", "start", name="at")
        return self._admin.list_offsets(topic_name(topic), bound, seconds(timeout))

    def cluster(self, *, timeout: Timeout = 30.0) -> ClusterDescription:
        """Describe the cluster: brokers, leaders, and copies that are not in sync.

        Blocks until brokers have answered: about the brokers, all topics, their
        ``min.insync.replicas``, and the metadata quorum. Memory grows with the number of
        partitions.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        ClusterDescription
            The cluster as of now; tables in a notebook.

        Raises
        ------
        ConnectionError or TimeoutError
            When no broker answers.

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker, broker.client() as kafka:
        ...     _ = kafka.create_topic("orders", partitions=2)
        ...     cluster = kafka.cluster()
        ...     cluster.leaders, cluster.under_replicated
        ({1: 2}, [])
        """
        return ClusterDescription._of(self._admin.describe_cluster(seconds(timeout)))  # noqa: SLF001

    configs_async = in_thread(configs)
    alter_configs_async = in_thread(alter_configs)
    delete_records_async = in_thread(delete_records)
    offsets_async = in_thread(offsets)
    cluster_async = in_thread(cluster)

    def _ipython_key_completions_(self) -> list[str]:
        """Return what a notebook offers after ``client["``."""
        try:
            return self._admin.topics(internal=False, timeout=_GLANCE_SECONDS)
        except KafkaError:
            return []

    def _repr_html_(self) -> str:
        """Show the topics; a notebook must not wait for long."""
        try:
            cluster = self.cluster(timeout=_GLANCE_SECONDS)
        except KafkaError as error:
            return html_table(["client", "state"], [[self.bootstrap_servers, error]])
        topics: dict[str, list[ClusterPartition]] = {}
        for one in cluster.partitions:
            if not one.topic.startswith("__"):
                topics.setdefault(one.topic, []).append(one)
        rows: list[list[object]] = [
            [name, len(found), *_state(found)] for name, found in sorted(topics.items())
        ]
        caption = (
            f"Client of {self.bootstrap_servers}: {len(cluster.brokers)} brokers, "
            f"{len(topics):,} topics"
        )
        names = ["topic", "partitions", "replicas", "state"]
        return html_table(names, rows, caption, most=_SHOWN_MAX)

    @property
    def groups(self) -> Groups:
        """The consumer groups: list, describe (members, offsets, lag), reset, delete."""
        return Groups(self)


def _state(partitions: list[ClusterPartition]) -> tuple[int, str]:
    """Return how many replicas partitions have, and what is wrong with them."""
    counts = {
        "offline": sum(one.is_offline for one in partitions),
        "under-replicated": sum(one.is_under_replicated for one in partitions),
    }
    wrong = [f"{count} {what}" for what, count in counts.items() if count]
    return max(len(one.replicas) for one in partitions), ", ".join(wrong) or "ok"
