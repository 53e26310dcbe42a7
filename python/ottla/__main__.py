"""The command line of ottla, as ``ottla`` and as ``python -m ottla``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line with the arguments of this process.

    Returns
    -------
    int
        0 when it succeeded, 1 when it failed, 2 when the arguments were not understood.
    """
    from ottla._ottla import run_cli

    # The command line installs its own handlers; Python's would wait for the interpreter.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_cli(["ottla", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
