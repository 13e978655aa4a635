"""What holds for every test of a run."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # `nohup make test &` and cron start with SIGINT ignored. Children inherit that, and those that a test interrupts
    # would go on. A handler of ours is no handler of theirs: a new program starts with the default again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
