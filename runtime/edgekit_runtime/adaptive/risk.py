"""Which actions are on offer at all: what may lose accuracy only under a named risk (docs/decisions/0039).

One rule for the session, `edgekit plan` and `edgekit simulate`. An action may lose accuracy when it answers early
(exits, cascades) or when its codec changes what is sent (int8 rows, JPEG, WebP). Loss is counted from the graph that
`local` runs. That one passed its gate at conversion and is the student itself: what it lost there is told by
`edgekit inspect` and is no loss of an action, so neither it nor what is sent of it without loss is held back. A
certificate counts from the same graph; a codec was judged at conversion beside the student, so that its loss holds what
its graph lost, too, and errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgekit_runtime import codecs
from edgekit_runtime.adaptive.actions import ActionCost
from edgekit_runtime.adaptive.state import Policy
from edgekit_runtime.manifest import Action, OperatingPoint


def loss(by: OperatingPoint | Action | None) -> tuple[float | None, float | None]:
    """What an action loses, and the most to reckon with: upper end of the 95 % interval, or the certified risk.

    Args:
        by: What tells it: a certificate, or what conversion measured of a codec; None: the graph as it is.

    Returns:
        Both None where it was not measured. A gain seen by chance counts as no loss.
    """
    if by is None:
        return 0.0, 0.0
    if isinstance(by, OperatingPoint):
        return by.empirical_risk, by.risk
    if by.accuracy_drop is None or by.interval_95 is None:
        return None, None
    return max(by.accuracy_drop, 0.0), max(by.interval_95[1], by.accuracy_drop, 0.0)


def losing(cost: ActionCost, by: OperatingPoint | Action | None) -> ActionCost:
    """A cost with its loss."""
    drop, high = loss(by)
    return msgspec.structs.replace(cost, accuracy_drop=drop, accuracy_drop_high=high)


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
    """The actions that a policy lets be offered, in their order, and of each other one why it is left out.

    What is left out goes by its id without a lossless codec, as a session calls it: that one has not tried any.
    """
    kept, left_out = [], {}
    for action in actions:
        why = why_not(action.accuracy_drop, action.highest_drop, policy) if may_lose(action) else ""
        if why:
            plain = codecs.parsed(action.codec)[0] in codecs.LOSSLESS
            left_out[action.id.removesuffix(f":{action.codec}") if plain else action.id] = why
        else:
            kept.append(action)
    return tuple(kept), left_out
