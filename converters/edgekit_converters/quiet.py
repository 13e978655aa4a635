"""Keeps the tools underneath from talking over the person's terminal.

litert-torch prints [START]/[DONE] lines, ai-edge-quantizer draws bars, absl and XNNPACK write to file descriptor 2 from
C++. Everything is put back as it was when the block ends; nothing that a caller configured is lost.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Python logging, warnings, `sys.stdout` and `sys.stderr` while the block runs.

    An exception passes through unchanged. Writers that hold the original streams (a progress bar that was made before)
    keep working.
    """
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], logging.root.manager.disable
    root.handlers[:] = [logging.NullHandler()]
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            # The second setting stops litert-torch from changing the levels of torch's loggers for good.
            _environment(LITERT_TORCH_SHOW_PROGRESS="n", LITERT_TORCH_SILENCE_TORCH_LOGS="n"),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        logging.disable(disabled)


@contextlib.contextmanager
def quiet_native() -> Iterator[None]:
    """As `quiet`, and also what C++ writes to file descriptor 2. Hold it for short calls only: it is process-wide."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            try:
                with quiet():
                    yield
            finally:
                os.dup2(saved, 2)
    finally:
        os.close(saved)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables with these values while the block runs; litert-torch reads its settings there each time."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
