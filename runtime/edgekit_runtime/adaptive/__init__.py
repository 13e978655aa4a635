"""Which action answers this request? Decided by pure functions of costs, link, load and policy.

    actions.py     what each action costs, as plain data; compiled once into matrices
    names.py       ids of the actions that come from a manifest
    risk.py        which actions are on offer at all: lossy ones only under a named risk
    state.py       what is believed of the link and the load, and what the person wants (`Policy`)
    costs.py       time, spread, energy and probability of a miss: linear in the state
    choose.py      choose(actions, link, load, policy) -> Decision
    explain.py     why each alternative lost, in plain words; made when asked for
    estimators.py  link and load from what real requests took
    shares.py      how many of its declared bytes an action really sends
    flights.py     requests that are out, and what an overdue one says of the link
    trials.py      what is tried beside the chosen action, and how often
    controller.py  estimators and choice together, with hedges and bounded probes: one object a session
    journal.py     decisions written to a log and read back: the log alone reproduces each choice

Needs numpy and msgspec only. The same code serves the device, the simulator, a replayed log and the planner.
"""

from __future__ import annotations

from edgekit_runtime.adaptive.actions import ActionCost, ActionSet, Power
from edgekit_runtime.adaptive.choose import Decision, choose
from edgekit_runtime.adaptive.controller import Controller, Outcome, Plan
from edgekit_runtime.adaptive.state import Link, Load, Policy

__all__ = [
    "ActionCost",
    "ActionSet",
    "Controller",
    "Decision",
    "Link",
    "Load",
    "Outcome",
    "Plan",
    "Policy",
    "Power",
    "choose",
]
