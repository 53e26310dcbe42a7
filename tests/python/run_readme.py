"""Run the examples of README.md and of the docstrings: ``run_readme.py README.md``.

Blocks of ``python`` run in one namespace, those of ``console`` line by line after each ``$``, all
in an empty directory. The README is right when everything succeeds.
"""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import types

BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_python(code: str, line: int, namespace: dict[str, object]) -> None:
    """Run a block of Python."""
    # Blank lines in front keep the line numbers of the README in tracebacks.
    exec(compile("\n" * line + code, "README.md", "exec"), namespace)


def run_console(text: str) -> None:
    """Run the commands of a block in one shell."""
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    if any(command.startswith(("make ", "git ", "pip ")) for command in commands):
        return  # how to get here
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(commands)
    subprocess.run(["bash", "-c", script], check=True, timeout=60, env={**os.environ, "PATH": path})


def run_blocks(readme: Path) -> int:
    """Run all blocks; return how many there are."""
    namespace: dict[str, object] = {"__name__": "__readme__"}
    text = readme.read_text()
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        begin = time.monotonic()
        if block.group(1) == "python":
            run_python(block.group(2), line, namespace)
        else:
            run_console(block.group(2))
        print(f"README.md:{line}: {block.group(1)} {time.monotonic() - begin:.1f} s", flush=True)
    return len(blocks)


def modules() -> list[types.ModuleType]:
    """Return all modules of the package but the demo, which runs by itself."""
    import ottla

    names = [module.name for module in pkgutil.iter_modules(ottla.__path__, "ottla.")]
    skipped = ("ottla.__main__", "ottla.demo", "ottla._ottla")
    return [ottla, *(importlib.import_module(name) for name in names if name not in skipped)]


def run_docstrings() -> tuple[int, int]:
    """Run the examples of the docstrings; return how many failed and how many there are."""
    failed = attempted = 0
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for module in modules():
        result = doctest.testmod(module, optionflags=flags)
        failed += result.failed
        attempted += result.attempted
    return failed, attempted


def main() -> int:
    """Run everything; return the exit status."""
    warnings.simplefilter("ignore", RuntimeWarning)
    readme = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        blocks = run_blocks(readme)
        failed, attempted = run_docstrings()
        os.chdir("/")
    print(f"README: {blocks} blocks; docstrings: {attempted} examples, {failed} failed")
    return 1 if failed or not blocks or not attempted else 0


if __name__ == "__main__":
    sys.exit(main())
