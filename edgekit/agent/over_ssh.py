"""An agent that ssh starts on the device for one profile, and that leaves nothing behind.

    workstation                               device
    ssh USER@HOST python3 -c BOOT  ------->   reads the length and a zip of edgekit's own Python files,
      zip of edgekit (pure Python) ------->   unpacks them into a temporary folder, serves on its pipes,
      wire messages            <-------->     removes the folder

The device needs Python, numpy, psutil, msgspec and an engine (or an installed edgekit). No port is opened, no token is
needed: ssh proves both sides.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import IO

from edgekit.agent.channels import PipeChannel
from edgekit.profiler.where import Access, Where
from edgekit_runtime.errors import Unreachable, UsageError

READY = b"edgekit-agent-ready\n"
_START_S = 30.0
_PACKAGES = {"edgekit": ("__init__.py", "files.py", "profiler", "agent", "devices", "energy"), "edgekit_runtime": ("",)}

# Runs on the device. Descriptor 1 carries messages only: whatever is printed goes to stderr.
BOOT = """
import os, shutil, sys, tempfile, zipfile, io
def read(n):
    data = b""
    while len(data) < n:
        part = os.read(0, min(n - len(data), 1 << 20))
        if not part: sys.exit(1)
        data += part
    return data
folder = tempfile.mkdtemp(prefix="edgekit-agent-")
try:
    zipfile.ZipFile(io.BytesIO(read(int.from_bytes(read(8), "big")))).extractall(folder)
    sys.path.insert(0, folder)
    from edgekit.agent.stdio import main
    main(folder)
finally:
    shutil.rmtree(folder, ignore_errors=True)
"""


def own_code() -> bytes:
    """A zip of the Python files that profiling needs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for package, parts in _PACKAGES.items():
            with resources.as_file(resources.files(package)) as root:
                for part in parts:
                    _add(file, package, root, root / part)
    return packed.getvalue()


def _add(file: zipfile.ZipFile, package: str, root: Path, start: Path) -> None:
    found = [start] if start.is_file() else sorted(start.rglob("*"))
    for path in found:
        kept = path.suffix in (".py", ".toml", ".json") and "__pycache__" not in path.parts
        if path.is_file() and kept:
            file.write(path, f"{package}/{path.relative_to(root).as_posix()}")


def command(where: Where, access: Access) -> list[str]:
    """The ssh command that starts an agent. Host and user went through `where.parse`: they are no options."""
    options = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
    options += ["-p", str(where.port)] if where.port else []
    target = f"{where.user}@{where.host}" if where.user else where.host
    return ["ssh", *options, "--", target, f"{shlex.quote(access.python)} -u -c {shlex.quote(BOOT)}"]


@contextlib.contextmanager
def started(where: Where, access: Access) -> Iterator[PipeChannel]:
    """Starts the agent, and ends it with the block.

    Raises:
        UsageError: There is no ssh here.
        Unreachable: ssh fails, or Python does not start there; with ssh's own words.
    """
    if shutil.which("ssh") is None:
        raise UsageError("there is no ssh on this machine", remedy="install an OpenSSH client, or use tcp://HOST:PORT")
    begin = time.monotonic()
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command(where, access), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, start_new_session=True
        )
        assert process.stdin is not None and process.stdout is not None
        channel = PipeChannel(os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        try:
            code = own_code()
            try:
                channel.write(len(code).to_bytes(8, "big") + code)
                _expect_ready(channel)
            except OSError as error:
                process.kill()
                raise _unready(where, access, _told(words) or str(error), time.monotonic() - begin) from error
            yield channel
        finally:
            channel.close()
            process.stdin.close()
            try:
                process.wait(timeout=10)  # it removes its folder when its pipe ends
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _unready(where: Where, access: Access, said: str, seconds: float) -> Unreachable:
    """Why no agent started, from the last words of ssh or of the Python there."""
    lacking = re.search(r"No module named '([\w.]+)'", said)
    if lacking:
        install = f"{access.python} -m pip install numpy psutil msgspec onnxruntime ai-edge-litert"
        return Unreachable(
            f"{where.text} was reached, but {access.python} there has no package {lacking[1]}",
            remedy=f"run there: {install} (one engine will do), or name another Python with --remote-python",
        )
    return Unreachable(
        f"{where.text} could not be reached: tried for {seconds:.1f} s, {said}",
        remedy="try `ssh` by hand; the device needs python3 with numpy, psutil, msgspec and an engine",
    )


def _expect_ready(channel: PipeChannel) -> None:
    seen = b""
    while not seen.endswith(READY):
        part = channel.read(1, _START_S)
        if not part or len(seen) > 65536:
            raise ConnectionError("the device's Python ended without an answer")
        seen += part


def _told(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
