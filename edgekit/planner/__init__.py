"""Which action wins where: from a bundle, device profiles, links and loads to a table, a picture and crossovers.

bundle_actions.py  every way a bundle can answer a request, as a session lists them -> ActionCost
wires.py           bytes of what is sent, by codec
cascades.py        those with a cheaper student in front
times.py           how long a graph takes on a device or a server: measured, or from its profile
plan.py            the best action over a grid of links and loads, crossover bandwidths, the verdict
page.py            the picture
"""

from __future__ import annotations

from edgekit.planner.bundle_actions import Priced, price
from edgekit.planner.plan import Grid, Plan, plan

__all__ = ["Grid", "Plan", "Priced", "plan", "price"]
