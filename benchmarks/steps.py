"""One step of a page as a process of its own, with a time limit, whose JSON file stays until code or data change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent


def fresh_step(
    path: Path, mark: str, words: Sequence[str], limit_s: int, *, again: bool = False, said: str = ""
) -> None:
    """Has a module write a JSON file, unless it was written by the same code and data.

    Args:
        path: Of the JSON file; its log and its stamp lie beside it. A step that fails leaves what it had written and
            `trouble`, and is made again next time.
        mark: Digest of what the file depends on.
        words: Module and arguments: `python -m WORDS`.
        limit_s: Seconds after which the process is stopped.
        again: Make it whatever there is.
        said: Before the words of `trouble`.
    """
    stamp = path.with_suffix(".stamp")
    if is_current(path, mark) and not again:
        return
    path.unlink(missing_ok=True)
    stamp.unlink(missing_ok=True)
    why = ran(words, path.with_suffix(".log"), limit_s)
    if why:
        found = msgspec.json.decode(path.read_bytes()) if path.is_file() else {}
        path.write_bytes(msgspec.json.encode(found | {"trouble": f"{said}{why}"}))
    else:
        stamp.write_text(mark)
    print(f"{path.stem}: {why or 'done'}", flush=True)


def is_current(path: Path, mark: str) -> bool:
    """Whether a step's file was written by the code and data that the mark is of."""
    stamp = path.with_suffix(".stamp")
    return path.is_file() and stamp.is_file() and stamp.read_text() == mark


def leave(path: Path, found: dict[str, object]) -> None:
    """Writes a step's file whole: a step that is stopped meanwhile leaves no half a file."""
    written = path.with_suffix(".part")
    written.write_bytes(msgspec.json.encode(found))
    written.replace(path)


def ran(words: Sequence[str], log: Path, limit_s: int) -> str:
    """Runs `python -m WORDS` on one thread. Returns why it failed, the log's last line; empty where it did not."""
    with log.open("w") as file:
        try:
            code = subprocess.run(
                [sys.executable, "-m", *words],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                timeout=limit_s,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).returncode
        except subprocess.TimeoutExpired:
            return f"no result within {limit_s} s"
    if not code:
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines and code > 0 else f"exit code {code}"
