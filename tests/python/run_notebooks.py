"""Executes notebooks in a fresh kernel and fails when a cell fails.

``python tests/python/run_notebooks.py notebooks`` runs each notebook of the directories and files
that it is given, in a temporary directory, with the interpreter that runs this script. The executed
copies are under ``build/notebooks``. ``--in-place`` writes them back over the notebooks instead:
this is how their pictures are made. Outputs are not compared: they contain times and ports.

A committed notebook has outputs, is small, and contains no path of the machine it ran on.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.validator import normalize

#: Seconds that one cell may take.
PATIENCE = 120
#: The maximum size of a committed notebook, in bytes.
SIZE_MAX = 500_000
#: Paths of a machine, in outputs.
MACHINE_PATH = re.compile(r"(?:/tmp|/home|/root|/work|/Users|/var/folders|[A-Z]:\\Users)[/\\]\S*")
BUILD = Path(__file__).resolve().parents[2] / "build" / "notebooks"


def notebooks(arguments: list[Path]) -> list[Path]:
    """Return the notebooks that the arguments name, and those in the directories."""
    found: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            found += sorted(
                path for path in argument.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
            )
        else:
            found.append(argument)
    return found


def texts(output: Any) -> list[str]:
    """Return the texts of an output; pictures have none."""
    if output.output_type == "stream":
        return [output.text]
    data = output.get("data", {})
    return [str(text) for kind, text in data.items() if not kind.startswith("image/")]


def problems(path: Path, notebook: Any) -> list[str]:
    """Return what is wrong with a notebook as it was committed or is about to be."""
    found = []
    if (size := len(nbformat.writes(notebook))) > SIZE_MAX:
        found.append(f"{path}: {size:,} bytes are more than {SIZE_MAX:,}")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in code):
        found.append(f"{path}: has no outputs; run with --in-place")
    for place, cell in enumerate(code, start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{path}: cell {place} shows {output.ename}")
            for text in texts(output):
                found += [
                    f"{path}: cell {place} shows {match[0]}"
                    for match in MACHINE_PATH.finditer(text)
                ]
    return found


def tidy(notebook: Any) -> None:
    """Remove what only says when and by what a notebook was run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}


def execute(path: Path) -> tuple[Any, str | None]:
    """Execute a notebook in a fresh kernel; return it, and the error if a cell failed."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(
            notebook,
            timeout=PATIENCE,
            kernel_name="python3",
            resources={"metadata": {"path": directory}},
        )
        try:
            client.execute()
        except CellExecutionError as error:
            return notebook, str(error)
    return notebook, None


def main() -> int:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--in-place", action="store_true", help="write the notebooks themselves")
    arguments = parser.parse_args()
    # A build without optimisations says so, which is not the notebook's subject.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore:ottla was built without optimisations:RuntimeWarning"
    )
    failures: list[str] = []
    for path in notebooks(arguments.notebooks):
        start = time.monotonic()
        found = [] if arguments.in_place else problems(path, nbformat.read(path, as_version=4))
        notebook, error = execute(path)
        if error is not None:
            found.append(f"{path}:\n{error}")
        if arguments.in_place and error is None:
            tidy(notebook)
            found += problems(path, notebook)
            _, notebook = normalize(notebook)
            nbformat.write(notebook, path)
        else:
            BUILD.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, BUILD / path.name)
        state = "failed" if found else "executed"
        print(f"{path}: {state} in {time.monotonic() - start:.1f} s")
        failures += found
    print("\n".join(failures), end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
