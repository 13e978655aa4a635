"""Policies on the command line, and what they leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rich.console import Console

from edgekit_runtime.adaptive import Policy
from edgekit_runtime.adaptive.state import parse_policy
from edgekit_runtime.errors import UsageError

_SHOWN = 3
_FIGURE = re.compile(r"\d[\d.e+-]*")


def read_policy(rows: list[str]) -> Policy:
    """A policy from `key=value` rows.

    Raises:
        UsageError: A key or value that a policy does not have.
    """
    keys: dict[str, object] = {}
    for row in rows:
        name, separator, value = row.partition("=")
        if not separator:
            raise UsageError(f"--policy {row} is not KEY=VALUE", remedy="--policy deadline_ms=80")
        keys[name] = tuple(value.split(",")) if name == "without" else _number(value)
    return parse_policy(keys)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def render_left_out(console: Console, left_out: Mapping[str, str], each: int = _SHOWN) -> None:
    """A line for each kind of reason why actions are not among those offered, with the first of them.

    A student of many split points has dozens; reasons that differ in their figures only are one kind.

    Args:
        console: Where.
        left_out: The reason, by the id of the action.
        each: So many different reasons of one kind still have a line each.
    """
    kinds: dict[str, dict[str, str]] = {}
    for name, why in left_out.items():
        kinds.setdefault(_FIGURE.sub("#", why), {})[name] = why
    for alike in kinds.values():
        reasons: dict[str, list[str]] = {}
        for name, why in alike.items():
            reasons.setdefault(why, []).append(name)
        if len(reasons) > each:
            first = next(iter(alike))
            rows = [(alike[first], [first], len(alike) - 1)]
        else:
            rows = [(why, names[:_SHOWN], max(len(names) - _SHOWN, 0)) for why, names in reasons.items()]
        for why, names, rest in rows:
            more = f" and {rest} more like it (--json)" if rest else ""
            console.print(f"left out: {', '.join(names)}{more}: {why}", markup=False)
    if any("names no max_risk" in why for why in left_out.values()):
        console.print(
            "  what to do: --policy max_risk=0.01 offers what loses a point of accuracy at most", markup=False
        )
