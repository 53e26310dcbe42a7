"""kcat, the command-line client of librdkafka."""

from __future__ import annotations

import json
import subprocess


def run(kcat: str, *arguments: str, stdin: str = "") -> str:
    """Run kcat to its end and return what it printed."""
    done = subprocess.run(
        [kcat, *arguments], input=stdin, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lines_go_in_and_come_out(bootstrap: str, topic: str, kcat: str) -> None:
    lines = "".join(f"key{number}:line {number}\n" for number in range(50))
    run(kcat, "-b", bootstrap, "-P", "-t", topic, "-p", "0", "-K:", "-z", "snappy", stdin=lines)
    out = run(
        kcat, "-b", bootstrap, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-K:"
    )
    assert out == lines
    last = run(kcat, "-b", bootstrap, "-C", "-t", topic, "-p", "0", "-o", "-3", "-e", "-q")
    assert last.splitlines() == ["line 47", "line 48", "line 49"]


def test_metadata_and_time_queries_are_answered(bootstrap: str, topic: str, kcat: str) -> None:
    listing = json.loads(run(kcat, "-b", bootstrap, "-L", "-J", "-t", topic))
    assert [entry["topic"] for entry in listing["topics"]] == [topic]
    assert len(listing["topics"][0]["partitions"]) == 3
    run(kcat, "-b", bootstrap, "-P", "-t", topic, "-p", "0", stdin="a\nb\n")
    assert run(kcat, "-b", bootstrap, "-Q", "-t", f"{topic}:0:0").split() == [
        topic,
        "[0]",
        "offset",
        "0",
    ]
