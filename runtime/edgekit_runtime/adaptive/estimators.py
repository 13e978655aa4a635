"""Link and load, estimated from what real requests took.

Everything estimated here is positive and wanders: its logarithm is taken as an Ornstein-Uhlenbeck process, so that an
estimate keeps its spread, grows less sure with age, and returns to the long-run level when nothing was heard for long.

    time of a request on the network = round trip + kbit up / uplink + kbit down / downlink          (+ noise)

One request gives one number, so its surprise is shared out among the three by how unsure each is (a Kalman filter with
a diagonal covariance): small requests teach the round trip, large ones the bandwidth. A surprise beyond three standard
deviations is a change of the link: the spread is opened as far as the surprise says, and the filter follows at once.
"""

from __future__ import annotations

import dataclasses
import math

from edgekit_runtime.adaptive.state import Link, Load, Share

_HOME_RATE = 0.03  # how quickly the long-run level follows
_SURPRISE = 9.0  # squared standard deviations: beyond it, a change
_EMPTY_NOISE = 0.15  # of the logarithm of an empty request's round trip
_CONNECTING = 0.6  # a second empty request that takes less of the first shows what connecting took
_WIDEST = 1.0  # variance of a logarithm that stands for "unknown"


@dataclasses.dataclass(frozen=True)
class Wandering:
    """How a quantity wanders.

    Attributes:
        prior: Its median before anything was seen.
        spread: Standard deviation of its logarithm in the long run.
        memory_s: Time in which a deviation from the long-run level decays to 1/e.
        prior_spread: Standard deviation of the logarithm of the prior.
    """

    prior: float
    spread: float
    memory_s: float
    prior_spread: float


class Level:
    """One wandering positive quantity. `value` is its median."""

    __slots__ = ("_at_s", "_home", "_log", "_memory_s", "_variance", "_wide")

    def __init__(self, kind: Wandering) -> None:
        self._log = self._home = math.log(kind.prior)
        self._variance = kind.prior_spread**2
        self._wide = kind.spread**2
        self._memory_s = kind.memory_s
        self._at_s: float | None = None

    def read(self, now_s: float) -> tuple[float, float]:
        """Median and variance of the logarithm, as of now."""
        if self._at_s is None:
            return math.exp(self._log), self._variance
        age_s = now_s - self._at_s
        keep = math.exp(-age_s / self._memory_s) if age_s > 0.0 else 1.0
        log = self._home + keep * (self._log - self._home)
        return math.exp(log), keep * keep * self._variance + (1 - keep * keep) * self._wide

    @property
    def home(self) -> float:
        """Median of the long-run level."""
        return math.exp(self._home)

    def surprised(self, now_s: float, value: float, noise: float) -> bool:
        """Is a direct reading beyond three standard deviations above what is believed?"""
        median, variance = self.read(now_s)
        error = math.log(max(value, 1e-6) / median)
        return error > 0 and error * error > _SURPRISE * (variance + noise * noise)

    def correct(self, now_s: float, value: float, variance: float) -> None:
        """Takes a new median and variance of the logarithm, and lets the long-run level follow."""
        self._log = math.log(value)
        if self._at_s is None:
            self._home = self._log
        self._home += _HOME_RATE * (self._log - self._home)
        self._variance = variance
        self._at_s = now_s

    def see(self, now_s: float, value: float, noise: float) -> None:
        """Corrects by a direct reading.

        Args:
            now_s: Monotonic.
            value: The reading.
            noise: Standard deviation of its logarithm.
        """
        median, variance = self.read(now_s)
        error = math.log(max(value, 1e-6) / median)
        total = variance + noise * noise
        if error * error > _SURPRISE * total:
            variance += error * error
            total += error * error
        gain = variance / total
        self.correct(now_s, median * math.exp(gain * error), (1 - gain) * variance)


class LinkEstimator:
    """Round trip and bandwidth from requests of mixed sizes. Not thread-safe; the session holds a lock."""

    _NOISE = 0.1  # jitter of one request's network time, as a fraction

    def __init__(self, first: Link | None = None) -> None:
        """Starts from a first guess, or from a 4G-like one of which it is not at all sure."""
        guess = first or Link()
        self._way = Wandering(guess.rtt_ms, 0.3, 60.0, 0.7)
        self._round_trip = Level(self._way)
        self._up = Level(Wandering(1 / max(guess.uplink_mbps, 1e-3), 0.7, 8.0, 1.2))
        self._down = Level(Wandering(1 / max(guess.downlink_mbps, 1e-3), 0.7, 8.0, 1.2))
        self._empty = 0  # requests seen; the first and the second count
        self._seen_s: float | None = None
        self._doubt_ms: float | None = None

    @property
    def doubts(self) -> bool:
        """Was the last empty request so slow that a second has to tell a longer way from a stall, or the very first?"""
        return self._doubt_ms is not None

    @property
    def usual_rtt_ms(self) -> float:
        """The round trip in the long run."""
        return self._round_trip.home

    def see(self, now_s: float, network_ms: float, bytes_up: float, bytes_down: float, noise: float = _NOISE) -> None:
        """Learns from one request.

        Args:
            now_s: Monotonic.
            network_ms: Round trip less what the server says it kept the request.
            bytes_up: Sent; 0: an empty request, which tells the round trip alone.
            bytes_down: Received.
            noise: Standard deviation of `network_ms` as a fraction of it.
        """
        if not bytes_up:
            self._see_empty(now_s, network_ms)
            return
        (rtt, rtt_v), (up, up_v) = self._round_trip.read(now_s), self._up.read(now_s)
        down, down_v = self._down.read(now_s)
        up_ms, down_ms = bytes_up * 8e-3 * up, bytes_down * 8e-3 * down
        error = network_ms - (rtt + up_ms + down_ms)
        own = (noise * max(network_ms, 0.1)) ** 2
        seen = rtt * rtt * rtt_v + up_ms * up_ms * up_v + down_ms * down_ms * down_v
        if error * error > _SURPRISE * (seen + own):
            # A change. What got slower is the bandwidth: a stall must not pass for a longer way. What got quicker may
            # be either. The parts are opened until the surprise is one standard deviation.
            way = rtt * rtt * rtt_v if error > 0 else 0.0
            opened = max(error * error - own - way, 0.0) / max(seen - way, 1e-12)
            if error <= 0:
                rtt_v *= opened
            up_v, down_v = up_v * opened, down_v * opened
            seen = way + (seen - way) * opened
        total = seen + own
        value, variance = _shifted(rtt, rtt_v, rtt, error, total)
        self._round_trip.correct(now_s, min(value, network_ms), variance)  # nothing is quicker than there and back
        self._up.correct(now_s, *_shifted(up, up_v, up_ms, error, total))
        if bytes_down:
            self._down.correct(now_s, *_shifted(down, down_v, down_ms, error, total))
        self._seen_s = now_s

    def _see_empty(self, now_s: float, network_ms: float) -> None:
        """One slow empty request may have met a stall, two in a row are a longer way: the quicker one is believed.

        So it is with the very first, which also makes the connection: where the second is much quicker, it counts.
        """
        self._empty += 1
        if self._empty == 1:
            self._doubt_ms = network_ms
            self._round_trip.see(now_s, network_ms, _EMPTY_NOISE)
            return
        if self._doubt_ms is None and self._round_trip.surprised(now_s, network_ms, _EMPTY_NOISE):
            self._doubt_ms = network_ms
            return
        if self._empty == 2 and self._doubt_ms is not None:
            first_ms, self._doubt_ms = self._doubt_ms, None
            if network_ms > _CONNECTING * first_ms:
                return
            self._round_trip = Level(self._way)
        if self._doubt_ms is not None:
            network_ms, self._doubt_ms = min(network_ms, self._doubt_ms), None
        self._round_trip.see(now_s, network_ms, _EMPTY_NOISE)

    def read(self, now_s: float) -> Link:
        """The link as believed now."""
        (rtt, rtt_v), (up, up_v) = self._round_trip.read(now_s), self._up.read(now_s)
        down, down_v = self._down.read(now_s)
        return Link(
            rtt_ms=rtt,
            uplink_mbps=1 / up,
            downlink_mbps=1 / down,
            rtt_spread=math.sqrt(rtt_v),
            uplink_spread=math.sqrt(up_v),
            downlink_spread=math.sqrt(down_v),
            age_s=None if self._seen_s is None else now_s - self._seen_s,
        )


def _shifted(median: float, variance: float, part: float, error: float, total: float) -> tuple[float, float]:
    """Median and variance of a quantity after a reading of a sum that it is part of (a Kalman step in the logarithm).

    Args:
        median: Before.
        variance: Of its logarithm, opened where the reading was a change.
        part: What it was expected to add to the sum.
        error: What the sum was more than expected.
        total: Variance of the sum.
    """
    gain = part * variance / total  # of `error`, in the logarithm of this part at its median
    value = max(median * (1 + gain * error), 0.05 * median)
    return value, min(max(variance * (1 - part * gain), 1e-4), _WIDEST)


class BatchWork:
    """What many samples in one request take over one of them, on one side.

        work = samples * share, a share for each power of two up to which the samples go

    A share is 1 where samples gain nothing from each other; engines that read weights once for all of them stay below.
    It belongs to the graph and hardly wanders, so it is corrected slowly and never jumps: what jumps is the load.
    """

    def __init__(self) -> None:
        self._shares: dict[int, Level] = {}

    def read(self, now_s: float, samples: int) -> tuple[float, float]:
        """Work over that of one sample, and the variance of its logarithm."""
        if samples <= 1:
            return 1.0, 0.0
        share, variance = self._share(samples).read(now_s)
        return samples * share, variance

    def see(self, now_s: float, samples: int, work: float, variance: float) -> None:
        """Corrects by a reading of the work whose logarithm has this variance, all else than the share included."""
        if samples <= 1:
            return
        level = self._share(samples)
        share, own = level.read(now_s)
        total = own + variance
        error = math.log(max(work, 1e-6) / (samples * share))
        error = math.copysign(min(abs(error), math.sqrt(_SURPRISE * total)), error)
        level.correct(now_s, share * math.exp(own / total * error), own * variance / total)

    def _share(self, samples: int) -> Level:
        return self._shares.setdefault(samples.bit_length(), Level(Wandering(1.0, 0.1, 3600.0, 0.5)))


class LoadEstimator:
    """Slow-down of the device and the server, and the server's queue.

    The device's slow-down is what its utilisation by others says, times a factor learned from real runs: so a new
    burden shows at once, and a profile that is wrong is corrected. Of a run of many samples the surprise is shared out
    between the load and the share of the batch by how unsure each is, so that a batch is no slow device.
    """

    def __init__(self) -> None:
        self._device = Level(Wandering(1.0, 0.15, 120.0, 0.35))
        self._server = Level(Wandering(1.0, 0.3, 30.0, 0.4))
        self._queue = Level(Wandering(1.0, 0.7, 10.0, 0.7))
        self._device_work, self._server_work = BatchWork(), BatchWork()
        self._busy = 1.0
        self._battery: float | None = None

    @property
    def usual_server(self) -> tuple[float, float]:
        """The server's slow-down and queue (ms) in the long run."""
        return self._server.home, max(self._queue.home - 1.0, 0.0)

    def see_device(self, utilisation: float, battery_fraction: float | None = None) -> None:
        """Takes a reading of the device.

        Args:
            utilisation: Share of the cores that the graph would use which others hold, 0 to 1.
            battery_fraction: None: mains or unknown.
        """
        self._busy = 1 / (1 - min(max(utilisation, 0.0), 0.95))
        self._battery = battery_fraction

    def see_local_run(self, now_s: float, ratio: float, noise: float = 0.1, samples: int = 1) -> None:
        """Learns from a run on the device: its time over the profile's, which is that of one sample."""
        _share_out(now_s, ratio / self._busy, noise, samples, self._device, self._device_work)

    def see_reply(self, now_s: float, queue_ms: float, ratio: float, noise: float = 0.2, samples: int = 1) -> None:
        """Learns from what a reply says: its wait, and its service time over the profile's of one sample."""
        self._queue.see(now_s, queue_ms + 1.0, 0.3)
        _share_out(now_s, ratio, noise, samples, self._server, self._server_work)

    def read(self, now_s: float, samples: int = 1, shares: tuple[Share, ...] = ()) -> Load:
        """The load as believed now, for a request of so many samples, with such shares of the declared bytes."""
        device, device_v = self._device.read(now_s)
        server, server_v = self._server.read(now_s)
        queue, queue_v = self._queue.read(now_s)
        return Load(
            device_slowdown=device * self._busy,
            device_spread=math.sqrt(device_v),
            server_slowdown=server,
            server_spread=math.sqrt(server_v),
            queue_ms=max(queue - 1.0, 0.0),
            queue_sd_ms=queue * math.sqrt(queue_v),
            battery_fraction=self._battery,
            samples=samples,
            device_work=self._device_work.read(now_s, samples)[0],
            server_work=self._server_work.read(now_s, samples)[0],
            shares=shares,
        )


def _share_out(now_s: float, ratio: float, noise: float, samples: int, slowdown: Level, work: BatchWork) -> None:
    """Corrects a slow-down and a work whose product was read; each is noise to the other."""
    if samples <= 1:
        slowdown.see(now_s, ratio, noise)
        return
    (slow, slow_variance), (done, done_variance) = slowdown.read(now_s), work.read(now_s, samples)
    slowdown.see(now_s, ratio / done, math.sqrt(noise * noise + done_variance))
    work.see(now_s, samples, ratio / slow, noise * noise + slow_variance)
