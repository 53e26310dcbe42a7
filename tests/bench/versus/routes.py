"""The same work by several programs, each a process of its own that says what it took.

A program prints a line of JSON when its work is done, and does it again for each line that it is
told. So its memory is its own, and a library that is missing here may be in another environment.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

HERE = Path(__file__).parent
ROUND_SECONDS = 900


class Route:
    """A program of this folder that does a piece of work, in its ``with`` block."""

    def __init__(self, program: str, *words: object, python: str = sys.executable) -> None:
        command = [python, "-W", "ignore", str(HERE / program), *map(str, words)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        if python != sys.executable:
            environment.pop("PYTHONPATH")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def facts(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self.process.args!r} ended with status {self.process.wait()}")

    def again(self) -> dict[str, Any]:
        """Let it do its work for what is new, and return what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.facts()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(ROUND_SECONDS if error is None else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def lacks(python: str, library: str) -> bool:
    """Whether an interpreter does not have a library."""
    try:
        command = [python, "-W", "ignore", "-c", f"import {library}"]
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except OSError:
        return True


def code_lines(program: str, function: str) -> int:
    """Return how many lines a function of a program has, without its docstring and comments."""
    text = (HERE / program).read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = node.body[0]
            has_words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            begin = first.end_lineno if has_words else node.lineno
            assert begin is not None
            lines = text.splitlines()[begin : node.end_lineno]
            return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)
    raise LookupError(f"{program} has no function {function}")
