"""Where a profile is taken: on this machine, on a board through its agent, or predicted from a device's profile.

local                     this machine
tcp://HOST:PORT           the agent that runs there (`edgekit agent`)
ssh://USER@HOST[:PORT]    an agent that is started there for this profile and removed afterwards
NAME                      a device profile: predicted, and said so in every document
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from edgekit_runtime.errors import UsageError

DEFAULT_PORT = 7843
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|\w[\w.-]*)"
    r"(?::(?P<port>\d{1,5}))?"
)


@dataclasses.dataclass(frozen=True)
class Where:
    """One `--device`.

    Attributes:
        text: As the person wrote it.
        kind: How the figures are got.
        host: Name or address; an IPv6 address without its brackets.
        port: Port of the agent, or of sshd (0: ssh's own default).
        user: User for ssh; empty: ssh's own default.
    """

    text: str
    kind: Literal["local", "tcp", "ssh", "named"]
    host: str = ""
    port: int = 0
    user: str = ""


def parse(text: str) -> Where:
    """Reads a `--device`.

    Raises:
        UsageError: It is none of the four kinds, or an address that cannot be.
    """
    if text == "local":
        return Where(text, "local")
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return Where(text, "named")
    found = _ADDRESS.fullmatch(rest.rstrip("/"))
    if scheme not in ("tcp", "ssh") or found is None or (scheme == "tcp" and found["user"]):
        raise UsageError(
            f"--device takes local, a profile's name, tcp://HOST:PORT or ssh://USER@HOST, got {text!r}",
            remedy="say tcp://raspberrypi:7843, or ssh://pi@raspberrypi",
        )
    port = int(found["port"] or (DEFAULT_PORT if scheme == "tcp" else 0))
    if port > 65535 or (found["port"] and port == 0):
        raise UsageError(f"--device {text}: a port lies between 1 and 65535", remedy=f"the agent's is {DEFAULT_PORT}")
    kind: Literal["tcp", "ssh"] = "tcp" if scheme == "tcp" else "ssh"
    return Where(text, kind, found["host"].strip("[]"), port, found["user"] or "")


@dataclasses.dataclass(frozen=True)
class Access:
    """How an agent is entered.

    Attributes:
        token: Shared secret; empty: none.
        ca: Certificate that the agent's must be signed by (or the agent's own); None: the one of the system.
        cert: This side's certificate for mutual TLS.
        key: Its key.
        python: Python on the device, for ssh.
    """

    token: str = dataclasses.field(default="", repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    python: str = "python3"
