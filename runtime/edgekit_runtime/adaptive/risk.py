"""Which actions are on offer at all: what may lose accuracy only under a named risk (docs/decisions/0039).

One rule for the session, `edgekit plan` and `edgekit simulate`. An action may lose accuracy when it answers early
(exits, cascades) or when its codec changes what is sent (int8 rows, JPEG, WebP). A graph that passed its gate at
conversion is the student itself: neither it nor what is sent of it without loss is held back.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekit_runtime import codecs
from edgekit_runtime.adaptive.actions import ActionCost
from edgekit_runtime.adaptive.state import Policy


def why_not(drop: float | None, high: float | None, policy: Policy) -> str:
    """Why an action that may lose accuracy is not offered; empty: it is.

    Args:
        drop: Its loss, as measured or certified; None: it was not.
        high: Upper end of the 95 % interval, or the certified risk; None: as above.
        policy: Its `max_risk` is the largest `high` that is offered.
    """
    if drop is None or high is None:
        return "what it costs in accuracy was not measured"
    if policy.max_risk is None:
        return f"may lose {high:.4g} of accuracy, and the policy names no max_risk"
    if high > policy.max_risk:
        return f"may lose {high:.4g} of accuracy, {policy.max_risk:g} is allowed"
    return ""


def may_lose(action: ActionCost) -> bool:
    """Can an action answer otherwise than its graph does?"""
    return action.kind in ("exit", "cascade") or codecs.parsed(action.codec)[0] not in codecs.LOSSLESS


def offered(actions: Sequence[ActionCost], policy: Policy) -> tuple[tuple[ActionCost, ...], dict[str, str]]:
    """The actions that a policy lets be offered, in their order, and of each other one why it is left out, by id."""
    left_out = {
        action.id: why
        for action in actions
        if may_lose(action) and (why := why_not(action.accuracy_drop, action.highest_drop, policy))
    }
    return tuple(action for action in actions if action.id not in left_out), left_out
