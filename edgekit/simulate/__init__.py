"""Policies against the oracle on recorded links and loads.

traces.py    recorded links and loads, read
world.py     what one request really takes
policies.py  who decides
engine.py    the event loop: devices, links, one server
study.py     all policies over days -> Study, and a recorded log under other policies
page.py      the pictures, one file that needs no network
"""

from __future__ import annotations

from edgekit.simulate.study import Setting, Study, simulate

__all__ = ["Setting", "Study", "simulate"]
