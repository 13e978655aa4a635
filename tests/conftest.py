"""What holds for every test of a run."""

from __future__ import annotations

import signal

from hypothesis import settings

# A property is true or false however long it takes: on a busy machine its first example may take any time.
settings.register_profile("edgekit", deadline=None)
settings.load_profile("edgekit")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # `nohup make test &` and cron start with SIGINT ignored. Children inherit that, and those that a test interrupts
    # would go on. A handler of ours is no handler of theirs: a new program starts with the default again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
