"""The command line of ottla, as ``ottla`` and as ``python -m ottla``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line with the arguments of this process.

    Returns
    -------
    int
        0 on success, 1 when the command failed, 2 when the arguments are wrong.
    """
    # The built-in half of `signal`: the other half costs a broker 0.8 MiB for enums.
    import _signal  # type: ignore[import-not-found]  # typeshed has no stubs of it

    from ottla._ottla import run_cli

    # The command line installs its own handlers; Python's would wait for the interpreter.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    return run_cli(["ottla", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
