"""Policies against the oracle on recorded links and loads.

traces.py    recorded links and loads, read
world.py     what one request really takes
policies.py  who decides
engine.py    the event loop: devices, links, one server
replay.py    a log of a real session: its link, its load, its pace
study.py     all policies over days -> Study
page.py      the pictures, one file that needs no network
"""

from __future__ import annotations

from edgekit.simulate.study import Setting, Study, simulate

__all__ = ["Setting", "Study", "simulate"]
