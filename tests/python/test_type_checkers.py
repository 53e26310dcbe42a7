"""Type checkers pass code of a user that is right, and find each mistake of code that is not.

mypy, and Pyright as the package basedpyright, which comes with a Node.js of its own; Pyright's own
package downloads itself when it is first run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import ottla
from ottla import typing as arguments
from processes import missing

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
CODE = Path(__file__).with_name("user_code")
PYTHON = "3.10"


def run(command: list[str]) -> str:
    environment = os.environ | {"MYPYPATH": str(ROOT / "python")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(path: Path, cache: Path) -> dict[int, str]:
    """Return what mypy finds in a file, by line."""
    if importlib.util.find_spec("mypy") is None or importlib.util.find_spec("pandas-stubs") is None:
        missing("mypy with pandas-stubs", "pip install --group lint")
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", "--config-file="]
    options += ["--python-version", PYTHON, "--cache-dir", str(cache)]
    printed = run([sys.executable, "-m", "mypy", *options, str(path)])
    # What it says of other files it does not say where ottla is installed.
    found = re.findall(rf"^\S*\b{path.name}:(\d+): error: (.*)$", printed, re.MULTILINE)
    return {int(line): text for line, text in found}


def pyright(path: Path, work: Path) -> dict[int, str]:
    """Return what Pyright finds in a file, by line."""
    config = work / "pyrightconfig.json"
    options = {"typeCheckingMode": "strict", "pythonVersion": PYTHON}
    places = {"include": [str(path)], "extraPaths": [str(ROOT / "python")]}
    config.write_text(json.dumps(options | places))
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("basedpyright", path=scripts) or shutil.which("basedpyright")
    if program is None:
        missing("basedpyright", "pip install --group lint")
    command = [
        str(program),
        "--project",
        str(config),
        "--pythonpath",
        sys.executable,
        "--outputjson",
    ]
    report = json.loads(run(command))
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        one["range"]["start"]["line"] + 1: one["message"]
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }


def marked(path: Path) -> set[int]:
    lines = path.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_right_code_passes_and_each_mistake_is_found(
    check: Callable[[Path, Path], dict[int, str]], tmp_path: Path
) -> None:
    assert check(CODE / "right.py", tmp_path) == {}
    wrong = CODE / "wrong.py"
    assert len(marked(wrong)) > 40
    assert set(check(wrong, tmp_path)) == marked(wrong)


def test_the_settings_of_a_client_are_those_that_the_engine_knows() -> None:
    """A checker would refuse a setting that is missing here, and pass one that does not exist."""
    source = (ROOT / "src" / "client" / "config.rs").read_text()
    table = source[source.index("options! {") : source.index("\nimpl ClientConfig")]
    rows = re.findall(r'^    \[("[^\]]*")\]', table, re.MULTILINE)
    known = {name for row in rows for name in re.findall(r'"([^"]+)"', row)}
    known -= {"bootstrap.servers", "metadata.broker.list", "client.id"}
    typed = {name.replace("_", ".") for name in arguments.Settings.__annotations__}
    assert typed == known
    assert set(arguments.ClientOptions.__annotations__) == {
        "client_id",
        "config",
        *arguments.Settings.__annotations__,
    }


WORDS: dict[str, Callable[[ottla.Client, Any], object]] = {
    "Acks": lambda _kafka, word: ottla.connect("localhost:1", acks=word).close(),
    "AutoOffsetReset": lambda _kafka, word: ottla.connect(
        "localhost:1", auto_offset_reset=word
    ).close(),
    "BufferCompression": lambda _kafka, word: ottla.arrow_ipc(compression=word),
    "CompressionType": lambda _kafka, word: ottla.connect(
        "localhost:1", compression_type=word
    ).close(),
    "Durability": lambda _kafka, word: ottla.Broker(durability=word).close(),
    "FormatName": lambda kafka, word: kafka.scan("words", value=word),
    "GroupProtocol": lambda kafka, word: kafka.consumer(
        "words", group_id="words", group_protocol=word
    ).close(),
    "IsolationLevel": lambda kafka, word: kafka.scan("words", isolation_level=word),
    "KeyFormatName": lambda kafka, word: kafka.table("words", key=word),
    "OnDataLoss": lambda kafka, word: kafka.scan("words", on_data_loss=word),
    "OnErrorOfRow": lambda kafka, word: kafka.table("words", on_error=word),
    "RemoteAssignor": lambda kafka, word: kafka.consumer(
        "words", group_id="words", group_protocol="consumer", group_remote_assignor=word
    ).close(),
    "TimeUnit": lambda _kafka, word: (ottla.ts(word), ottla.timestamp(0, word)),
    "Until": lambda kafka, word: kafka.consumer("words", until=word).close(),
}


def test_the_words_are_those_that_the_package_takes(kafka: ottla.Client) -> None:
    assert set(WORDS) | {"ClientOptions", "Settings"} == set(arguments.__all__)
    kafka.create_topic("words", exist_ok=True)
    for name, take in WORDS.items():
        for word in get_args(getattr(arguments, name)):
            take(kafka, word)
        if name == "RemoteAssignor":  # the coordinator knows them, which is not waited for
            continue
        with pytest.raises(ottla.ConfigError):
            take(kafka, "another")


def test_an_editor_shows_the_settings_of_a_client() -> None:
    import inspect

    for function in (ottla.connect, ottla.Broker.client, ottla.Cluster.client, ottla.Producer):
        names = inspect.signature(function).parameters
        assert {"linger_ms", "acks", "client_id"} <= set(names), function
        assert "options" not in names, function
