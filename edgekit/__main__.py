"""`python -m edgekit` and the `edgekit` script."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or names the pip line when it is not installed."""
    try:
        from edgekit.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write("edgekit: the command line is not installed\n  what to do: pip install 'edgekit[cli]'\n")
        sys.exit(3)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
