"""The entry point of the `trio-ws` command, also as ``python -m trio_ws``."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, and ends the process with its status."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("trio_ws"):
            raise
        sys.exit(
            f"trio-ws: the command line needs {exc.name}, which the server extra brings: "
            "pip install 'trio-ws[server]'"
        )
    run()


if __name__ == "__main__":
    main()
