"""An agent on its own pipes: what ssh starts."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from edgekit.agent.channels import PipeChannel
from edgekit.agent.over_ssh import READY
from edgekit.agent.server import Sessions, Settings
from edgekit.agent.wire import Wire


def main(folder: str | None = None) -> None:
    """Serves one workstation on descriptors 0 and 1, then ends.

    Args:
        folder: Where contents are kept while it runs; None: a temporary one.
    """
    logging.basicConfig(level=logging.ERROR)
    reads, writes = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="edgekit-agent-", dir=folder) as store:
        sessions = Sessions(Settings(), Path(store))
        channel = PipeChannel(reads, writes)
        channel.write(READY)
        try:
            sessions.serve(Wire(channel), token="")
        finally:
            sessions.close()


if __name__ == "__main__":
    main()
