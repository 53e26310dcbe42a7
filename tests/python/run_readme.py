"""Runs the examples of README.md, and those of the docstrings, as a reader would.

``python tests/python/run_readme.py README.md`` executes, in order and in a temporary directory
(``--only-pages`` leaves the docstrings out):

- ```` ```python ```` blocks, all in one namespace;
- ```` ```console ```` blocks: lines after ``$`` are commands of one shell per block, the others are
  their output. A command that ends in ``&`` keeps running to the end of the block; the next
  command waits for its first line of output;
- the ``>>>`` examples in the docstrings of the package, each docstring on its own.

A ```` ```text ```` block right after a Python block is what that block prints. It is compared
with the actual output; ``...`` stands for anything, and white space does not count. Blocks of
other languages (``sh``) are not run. ``127.0.0.1:9092``, where commands look for a broker, stands
for a free port.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import faulthandler
import inspect
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds until a run that hangs prints its stack and ends; seconds for a command of a shell.
PATIENCE = 300
COMMAND_PATIENCE = 60
EXAMPLE_ADDRESS = "127.0.0.1:9092"
PACKAGE = Path(__file__).resolve().parents[2] / "python" / "ottla"
MATCHING = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """A fenced block: its language, the line of its first line of text, and its text."""

    language: str
    line: int
    text: str


@dataclass
class Result:
    """What was run, and what went wrong."""

    count: int = 0
    failures: list[str] = field(default_factory=list)

    def compare(self, where: str, wanted: str, got: str) -> None:
        """Take note when the output is not what is shown."""
        if not doctest.OutputChecker().check_output(wanted, got, MATCHING):
            self.failures.append(f"{where}: expected\n{indent(wanted)}\ngot\n{indent(got)}")


def indent(text: str) -> str:
    """Indent text for a message."""
    return "\n".join("    " + line for line in text.splitlines()) or "    (nothing)"


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text."""
    found: list[Block] = []
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```"):
            inside = not inside
            if inside:
                found.append(Block(line[3:].strip(), number + 1, ""))
        elif inside:
            found[-1].text += line + "\n"
    if inside:
        raise ValueError(f"the block at line {found[-1].line} is not closed")
    return found


@contextlib.contextmanager
def temporary_directory() -> Iterator[None]:
    """Work in a new directory temporarily."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            yield
        finally:
            os.chdir(before)


def free_address() -> str:
    """Return an address of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def run_python(block: Block, path: str, names: dict[str, Any]) -> tuple[str, str | None]:
    """Execute a block of Python; return what it printed, and the traceback if it failed."""
    printed = io.StringIO()
    try:
        # The empty lines make the line numbers of a traceback match the page.
        tree = ast.parse("\n" * (block.line - 1) + block.text, path)
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, path, "exec"), names)
    except Exception as error:  # noqa: BLE001 - whatever an example raises is its failure
        if error.__traceback__ is not None:  # without the line of this script
            error.__traceback__ = error.__traceback__.tb_next
        return printed.getvalue(), "".join(traceback.format_exception(error))
    return printed.getvalue(), None


class Shell:
    """The commands of one block: each in its own process, some of them to the end of the block."""

    def __init__(self, address: str) -> None:
        scripts = str(Path(sys.executable).parent)
        self._environment = os.environ | {
            "PATH": scripts + os.pathsep + os.environ["PATH"],
            "OTTLA_BOOTSTRAP_SERVER": address,
            "OTTLA_LOG": "warn",
        }
        self._background: list[subprocess.Popen[str]] = []

    def run(self, command: str) -> tuple[str, str | None]:
        """Run a command; return its standard output, and what went wrong if it failed."""
        if command.endswith("&"):
            process = subprocess.Popen(
                ["bash", "-c", "exec " + command[:-1]],
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
            self._background.append(process)
            line = process.stdout.readline() if process.stdout else ""
            return line, None if line else f"ended with status {process.wait()}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=COMMAND_PATIENCE,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout, None
        return done.stdout, f"status {done.returncode}\n{indent(done.stderr)}"

    def close(self) -> list[str]:
        """Stop what is still running; return what did not end well."""
        problems = []
        for process in self._background:
            process.terminate()
            try:
                status = process.wait(COMMAND_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if process.stdout:
                process.stdout.close()
            if status != 0:
                problems.append(f"{process.args!r} ended with status {status} after SIGTERM")
        return problems


def commands(block: Block) -> list[tuple[int, str, str]]:
    """Split a console block into line numbers, commands and the output shown below them."""
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if line.startswith("$ "):
            found.append((number, line[2:], ""))
        elif found and found[-1][1].endswith("\\"):
            start, command, _ = found[-1]
            found[-1] = (start, command[:-1] + line.strip(), "")
        elif found:
            start, command, output = found[-1]
            found[-1] = (start, command, output + line + "\n")
        else:
            raise ValueError(f"line {number}: output before the first command")
    return found


def run_console(block: Block, path: str, address: str, result: Result) -> None:
    """Run the commands of a console block."""
    shell = Shell(address)
    try:
        for line, command, wanted in commands(block):
            got, error = shell.run(command.replace(EXAMPLE_ADDRESS, address))
            if error is not None:
                result.failures.append(f"{path}:{line}: {command}: {error}")
                break
            result.compare(f"{path}:{line}", wanted, got.replace(address, EXAMPLE_ADDRESS))
    finally:
        result.failures += [f"{path}:{block.line}: {problem}" for problem in shell.close()]


def run_page(path: Path) -> Result:
    """Run the blocks of a page; a Python block that fails ends the run."""
    result = Result()
    address = free_address()
    names: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(path.read_text(encoding="utf-8"))
    for block, after in zip(found, [*found[1:], None], strict=True):
        where = f"{path.name}:{block.line}"
        if block.language == "python":
            result.count += 1
            got, error = run_python(block, path.name, names)
            if error is not None:
                result.failures.append(f"{where}:\n{indent(error)}")
                break
            if after is not None and after.language == "text":
                result.compare(where, after.text, got)
        elif block.language == "console":
            result.count += 1
            run_console(block, path.name, address, result)
    return result


def docstrings(path: Path) -> list[tuple[str, int, str]]:
    """Return the names, lines and texts of the docstrings of a module or a stub."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            line = node.body[0].lineno
            found.append((f"{path.name}:{line} {getattr(node, 'name', '')}".rstrip(), line, text))
    return found


def native_docstrings() -> list[tuple[str, int, str]]:
    """Return the same of the classes of the extension, whose docstrings are in no file."""
    import ottla

    found = []
    for name in ottla.__all__:
        thing = getattr(ottla, name)
        if inspect.isclass(thing) and thing.__module__ == "ottla" and thing.__doc__:
            texts = {name: thing.__doc__}
            members = inspect.getmembers(thing)
            texts |= {f"{name}.{one}": method.__doc__ or "" for one, method in members}
            found += [(title, 0, inspect.cleandoc(text)) for title, text in texts.items()]
    return found


def run_docstrings(package: Path) -> Result:
    """Run the examples of the docstrings of a package, the extension and stubs included."""
    result = Result()
    parser, written = doctest.DocTestParser(), io.StringIO()
    runner = doctest.DocTestRunner(optionflags=MATCHING)
    files = sorted([*package.rglob("*.py"), *package.rglob("*.pyi")])
    found = [(str(path), *docstring) for path in files for docstring in docstrings(path)]
    found += [("the extension", *docstring) for docstring in native_docstrings()]
    for path, name, line, text in found:
        test = parser.get_doctest(text, {}, name, path, line)
        if test.examples:
            result.count += 1
            runner.run(test, out=written.write)
    if runner.failures:
        result.failures.append(written.getvalue())
    return result


def main() -> int:
    """Run what the command line names and say what failed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("pages", nargs="+", type=Path)
    arguments.add_argument("--only-pages", action="store_true")
    given = arguments.parse_args()
    pages = [page.resolve() for page in given.pages]
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    warnings.filterwarnings("ignore", "ottla was built without optimisations", RuntimeWarning)
    failed = False
    for title, run, argument in [
        *((page.name, run_page, page) for page in pages),
        *([] if given.only_pages else [("docstrings", run_docstrings, PACKAGE)]),
    ]:
        start = time.monotonic()
        with temporary_directory():
            result = run(argument)
        failed = failed or bool(result.failures)
        print("\n".join(result.failures), end="\n" if result.failures else "")
        state = f"{len(result.failures)} failed" if result.failures else "passed"
        print(f"{title}: {result.count} examples, {state}, {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
