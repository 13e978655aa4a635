"""Time, spread, energy and probability of a miss of every action at once.

Every term counts: head and codec on the device, round trip, bytes over uplink, queue, tail, answer over downlink. The
answer's distribution is taken as lognormal with the mean and variance of the sum (moments matched, Fenton 1960).
"""

from __future__ import annotations

import functools
import math
import operator
import statistics
from collections.abc import Sequence

import numpy as np

from edgekit_runtime.adaptive.actions import DEVICE, DOWNLINK, ROUND_TRIP, SERVER, UPLINK, ActionSet
from edgekit_runtime.adaptive.state import Link, Load, mean_and_variance

# Stands for "never" where a link carries nothing: an hour, so that sums stay finite and comparable.
NEVER_MS = 3.6e6


Levels = tuple[float, ...]


def levels(link: Link, load: Load) -> tuple[Levels, Levels]:
    """The state that the terms are linear in, and the variance of each entry; both of 7.

    Terms are those of one sample: of a request of many, the state has the work and the bytes of all of them.
    """
    here = load.device_slowdown * load.device_work * (1 + load.device_price)
    device, device_var = mean_and_variance(here, load.device_spread)
    server, server_var = mean_and_variance(load.server_slowdown * load.server_work, load.server_spread)
    rtt, rtt_var = mean_and_variance(link.rtt_ms, link.rtt_spread)
    if link.up:
        up, up_var = mean_and_variance(load.samples / link.uplink_mbps, link.uplink_spread)
        down, down_var = mean_and_variance(load.samples / link.downlink_mbps, link.downlink_spread)
    else:
        rtt, up, up_var, down, down_var = NEVER_MS, 0.0, 0.0, 0.0, 0.0
    return (
        (device, load.device_wait_ms, rtt + link.backlog_ms, up, load.queue_ms, server, down),
        (device_var, 0.0, rtt_var, up_var, load.queue_sd_ms**2, server_var, down_var),
    )


def state(link: Link, load: Load) -> tuple[np.ndarray, np.ndarray]:
    """`levels` as numpy: float64 [7] each."""
    theta, theta_variance = levels(link, load)
    return np.array(theta), np.array(theta_variance)


def mean_of(row: Levels, theta: Levels) -> float:
    """Time of one action (ms): a row of `ActionSet.rows` times the state."""
    return sum(map(operator.mul, row, theta))


def variance(actions: ActionSet, theta: np.ndarray, theta_variance: np.ndarray) -> np.ndarray:
    """Variance of each action's time, ms² [n]: what the state causes, and the action's own."""
    total = actions.squares @ np.concatenate((theta_variance, (theta[DEVICE] ** 2, theta[SERVER] ** 2)))
    if actions.mixed:  # some requests stop on the device: the remote part comes or does not
        sent = actions.offload
        remote = actions.terms[:, ROUND_TRIP:] @ theta[ROUND_TRIP:]
        total += np.divide(remote**2 * (1 - sent), sent, out=np.zeros_like(remote), where=sent > 0)
    for place, (up, down) in actions.share_rows.items():
        total[place] += _of_shares(up, down, theta.tolist(), theta_variance.tolist())
    return total


def variance_of(actions: ActionSet, place: int, theta: Levels, theta_variance: Levels) -> float:
    """`variance` of one action."""
    squares = actions.square_rows[place]
    total = mean_of(squares, theta_variance)  # up to the action's own, which stand last
    total += squares[-2] * theta[DEVICE] ** 2 + squares[-1] * theta[SERVER] ** 2
    if actions.mixed and 0.0 < (sent := float(actions.offload[place])) < 1.0:
        total += mean_of(actions.rows[place][ROUND_TRIP:], theta[ROUND_TRIP:]) ** 2 * (1 - sent) / sent
    if (kbit_variances := actions.share_rows.get(place)) is not None:
        total += _of_shares(*kbit_variances, theta, theta_variance)
    return total


def _of_shares(up: float, down: float, theta: Sequence[float], theta_variance: Sequence[float]) -> float:
    """Variance that the bytes themselves cause: of a product of two independent quantities, less what `squares` has."""
    return up * (theta[UPLINK] ** 2 + theta_variance[UPLINK]) + down * (theta[DOWNLINK] ** 2 + theta_variance[DOWNLINK])


def margin_of(mean_ms: float, variance_ms2: float, deadline_ms: float) -> float:
    """`margin` of one action."""
    mean = max(mean_ms, 1e-9)
    spread2 = math.log1p(variance_ms2 / (mean * mean)) + 1e-9
    return (math.log(deadline_ms / mean) + 0.5 * spread2) / math.sqrt(spread2)


def margin(mean_ms: np.ndarray, variance_ms2: np.ndarray, deadline_ms: float) -> np.ndarray:
    """How many standard deviations (of the logarithm) each action's time lies before the deadline [n].

    The probability of a miss is that of a normal deviate above it: `miss_probability`.
    """
    mean = np.maximum(mean_ms, 1e-9)
    spread2 = np.log1p(variance_ms2 / (mean * mean)) + 1e-9
    return (np.log(deadline_ms / mean) + 0.5 * spread2) / np.sqrt(spread2)


def miss_probability(margin_sd: float) -> float:
    """P(time > deadline) of an action that lies so many standard deviations before it."""
    return 0.5 * math.erfc(margin_sd / math.sqrt(2))


@functools.lru_cache(maxsize=64)
def margin_needed(miss: float) -> float:
    """The margin at which a miss has this probability."""
    return math.inf if miss <= 0 else -math.inf if miss >= 1 else -statistics.NormalDist().inv_cdf(miss)


def quantile_ms(mean_ms: float, variance_ms2: float, z: float) -> float:
    """The time that is exceeded with the probability of a normal deviate above z (z = 2.33: 1 %)."""
    if mean_ms <= 0:
        return 0.0
    spread2 = math.log1p(variance_ms2 / mean_ms**2)
    return mean_ms * math.exp(-spread2 / 2 + z * math.sqrt(spread2))


def energy_mj(actions: ActionSet, theta: np.ndarray, samples: int = 1) -> np.ndarray:
    """Millijoules of a request on the device, by action [n]: computing, waiting, and radio for each sample."""
    return actions.energy[:, :-1] @ theta + samples * actions.energy[:, -1]
