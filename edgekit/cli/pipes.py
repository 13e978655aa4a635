"""What is printed into a pipe that nobody reads any more (`edgekit inspect student.edge | head`)."""

from __future__ import annotations

import contextlib
import os
import sys


class ReaderGone(Exception):
    """Whoever read what a command prints has gone away. No OSError: click ends those its own way, with exit code 1."""


def to_nowhere() -> None:
    """Gives what is still to be flushed when Python ends to nobody; it would complain of it then."""
    with contextlib.suppress(OSError, ValueError):  # a stdout that is no file has no number
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
