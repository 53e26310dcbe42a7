"""Execute notebooks: ``run_notebooks.py FOLDER [--write]``; with ``--write`` keep the outputs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> int:
    """Run every notebook of the folder; a cell that raises ends it."""
    folder = Path(sys.argv[1])
    notebooks = sorted(folder.glob("*.ipynb"))
    for path in notebooks:
        begin = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
        if "--write" in sys.argv:
            notebook.metadata.pop("widgets", None)
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)
            nbformat.write(notebook, path)
        print(f"{path}: {len(notebook.cells)} cells in {time.monotonic() - begin:.1f} s")
    print(f"{len(notebooks)} passed, 0 failed")
    return 0 if notebooks else 1


if __name__ == "__main__":
    sys.exit(main())
