"""Apache Kafka's own command-line tools and its Java producer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from processes import JavaTools


def test_topics_are_created_described_altered_and_deleted(
    bootstrap: str, topic_name: str, java: JavaTools
) -> None:
    server = ("--bootstrap-server", bootstrap)
    named = ("--topic", topic_name)
    java.run(
        "topics", *server, "--create", *named, "--partitions", "2", "--config", "retention.ms=60000"
    )
    again = java.run("topics", *server, "--create", *named, status=1)
    assert "already exists" in again
    described = java.run("topics", *server, "--describe", *named)
    assert "PartitionCount: 2" in described
    assert "retention.ms=60000" in described
    java.run("topics", *server, "--alter", *named, "--partitions", "3")
    assert "PartitionCount: 3" in java.run("topics", *server, "--describe", *named)
    assert topic_name in java.run("topics", *server, "--list").splitlines()
    java.run("topics", *server, "--delete", *named)
    assert topic_name not in java.run("topics", *server, "--list").splitlines()


def test_configs_are_altered_and_described(bootstrap: str, topic: str, java: JavaTools) -> None:
    entity = ("--entity-type", "topics", "--entity-name", topic)
    server = ("--bootstrap-server", bootstrap)
    java.run("configs", *server, "--alter", *entity, "--add-config", "segment.bytes=2000000")
    described = java.run("configs", *server, "--describe", *entity)
    assert "segment.bytes=2000000" in described
    assert "DYNAMIC_TOPIC_CONFIG:segment.bytes=2000000" in described
    everything = java.run("configs", *server, "--describe", "--all", *entity)
    for name in ("cleanup.policy", "min.insync.replicas", "message.timestamp.type"):
        assert f"  {name}=" in everything
    java.run("configs", *server, "--alter", *entity, "--delete-config", "segment.bytes")
    assert "segment.bytes" not in java.run("configs", *server, "--describe", *entity)


def test_the_java_producer_writes_in_its_default_settings(
    bootstrap: str, topic: str, java: JavaTools
) -> None:
    out = java.run(
        "producer-perf-test",
        *("--topic", topic, "--num-records", "20000", "--record-size", "100"),
        *("--throughput", "-1", "--bootstrap-server", bootstrap),
    )
    assert "20000 records sent" in out
    lines = java.run("get-offsets", "--bootstrap-server", bootstrap, "--topic", topic).splitlines()
    ends = [int(line.rsplit(":", 1)[1]) for line in lines if line.startswith(f"{topic}:")]
    assert len(ends) == 3
    assert sum(ends) == 20000


def test_the_verifiable_producer_has_every_record_acknowledged(
    bootstrap: str, topic: str, java: JavaTools
) -> None:
    out = java.run(
        "verifiable-producer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--max-messages", "500"),
    )
    done = [json.loads(line) for line in out.splitlines() if '"tool_data"' in line]
    assert done[0]["sent"] == 500
    assert done[0]["acked"] == 500


def test_the_console_producer_writes_lines_with_keys(
    bootstrap: str, topic: str, java: JavaTools, kcat: str
) -> None:
    import subprocess

    java.run(
        "console-producer",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", "zstd"),
        *("--property", "parse.key=true", "--property", "key.separator=:"),
        stdin="a:1\nb:2\n",
    )
    out = subprocess.run(
        [kcat, "-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-K:"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert sorted(out.stdout.splitlines()) == ["a:1", "b:2"]


def test_records_are_deleted_and_log_dirs_described(
    bootstrap: str, topic: str, java: JavaTools, tmp_path: Path
) -> None:
    server = ("--bootstrap-server", bootstrap)
    java.run(
        "console-producer", *server, "--topic", topic, stdin="".join(f"{n}\n" for n in range(100))
    )
    lines = java.run("get-offsets", *server, "--topic", topic).splitlines()
    ends = {
        int(line.split(":")[1]): int(line.split(":")[2])
        for line in lines
        if line.startswith(f"{topic}:")
    }
    partition, end = max(ends.items(), key=lambda item: item[1])
    request = tmp_path / "delete.json"
    request.write_text(
        json.dumps(
            {
                "version": 1,
                "partitions": [{"topic": topic, "partition": partition, "offset": end - 1}],
            }
        )
    )
    out = java.run("delete-records", *server, "--offset-json-file", str(request))
    assert re.search(rf"{re.escape(topic)}-{partition}\s+low_watermark: {end - 1}", out)
    earliest = java.run("get-offsets", *server, "--topic", topic, "--time", "earliest")
    assert f"{topic}:{partition}:{end - 1}" in earliest
    dirs = java.run("log-dirs", *server, "--describe", "--topic-list", topic)
    described = json.loads(next(line for line in dirs.splitlines() if line.startswith("{")))
    replicas = described["brokers"][0]["logDirs"][0]["partitions"]
    assert {replica["partition"] for replica in replicas} == {f"{topic}-{p}" for p in range(3)}
    assert all(replica["size"] >= 0 for replica in replicas)


def test_the_cluster_tools_are_answered(bootstrap: str, java: JavaTools) -> None:
    server = ("--bootstrap-server", bootstrap)
    assert "Produce(0): " in java.run("broker-api-versions", *server)
    assert "Cluster ID: " in java.run("cluster", "cluster-id", *server)
    assert "metadata.version" in java.run("features", *server, "describe")
    status = java.run("metadata-quorum", *server, "describe", "--status")
    assert "LeaderId:" in status
    assert "LeaderEpoch:" in status
    acls = java.run("acls", *server, "--list", status=1)
    assert "SecurityDisabledException" in acls or "No Authorizer" in acls
    gone = java.run("cluster", "unregister", *server, "--id", "77", status=1)
    assert "BrokerIdNotRegistered" in gone or "not registered" in gone


def test_features_are_raised_and_lowered_on_trial(bootstrap: str, java: JavaTools) -> None:
    server = ("--bootstrap-server", bootstrap)
    level = ("--feature", "group.version=1")
    raised = java.run("features", *server, "upgrade", *level)
    assert "group.version was upgraded to 1" in raised
    lowered = java.run(
        "features", *server, "downgrade", "--feature", "group.version=0", "--dry-run"
    )
    assert "group.version can be downgraded to 0" in lowered
    described = java.run("features", *server, "describe")
    assert re.search(r"group.version\s.*FinalizedVersionLevel: 1", described)


def test_partitions_are_reassigned_and_leaders_elected(
    bootstrap: str, topic: str, java: JavaTools, tmp_path: Path
) -> None:
    server = ("--bootstrap-server", bootstrap)
    nobody = java.run(
        "leader-election",
        *server,
        "--election-type",
        "preferred",
        "--topic",
        topic,
        "--partition",
        "0",
    )
    assert "already" in nobody
    java.run("leader-election", *server, "--election-type", "preferred", "--all-topic-partitions")
    broker = re.search(
        r"Leader: (\d+)", java.run("topics", *server, "--describe", "--topic", topic)
    )
    assert broker is not None

    def plan(name: str, replicas: list[int]) -> tuple[str, str]:
        """Write a file that places every partition of the topic."""
        partitions = [{"topic": topic, "partition": p, "replicas": replicas} for p in range(3)]
        path = tmp_path / name
        path.write_text(json.dumps({"version": 1, "partitions": partitions}))
        return "--reassignment-json-file", str(path)

    same = plan("same.json", [int(broker[1])])
    executed = java.run("reassign-partitions", *server, *same, "--execute")
    assert "Successfully started partition reassignment" in executed
    verified = java.run("reassign-partitions", *server, *same, "--verify")
    assert verified.count("is completed") == 3
    assert "No partition reassignments found" in java.run("reassign-partitions", *server, "--list")
    elsewhere = plan("elsewhere.json", [int(broker[1]), 77])
    refused = java.run("reassign-partitions", *server, *elsewhere, "--execute", status=1)
    assert "77" in refused
