"""Keeps a native library's chatter off the person's terminal while it starts."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_STDERR = 2


@contextlib.contextmanager
def without_info_lines() -> Iterator[None]:
    """Holds back what native code writes to file descriptor 2 inside the block, then writes it on less its INFO lines.

    LiteRT announces its delegate on stderr, from C++ and without a switch. The redirection holds for the whole process,
    so callers keep the block short and use it only where the line can come.
    """
    with _lock:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # a process without stderr (a service): nothing to keep quiet
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
                os.close(saved)
                held.seek(0)
                for line in held:
                    if not line.startswith(b"INFO: "):
                        os.write(_STDERR, line)
