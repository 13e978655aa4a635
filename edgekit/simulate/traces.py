"""Recorded links and loads, read from the formats people publish them in.

| format | what a file holds |
|---|---|
| `.json` | a list of {duration_ms, bandwidth_kbps, latency_ms}, one way each (Sabre: Norway 3G, Ghent 4G, FCC) |
| `.csv` | a header: `time_s, uplink_mbps` and, where known, `downlink_mbps`, `rtt_ms`; the last row ends the trace |
| `.up`, `.down` | mahimahi: a line is a millisecond at which a 1500-byte packet can leave; its other half lies beside |
| anything else | two columns, second and Mbit/s (lumos) |

A `.zip` holds many of them; `FILE.zip:NAME` is one. Most published traces are downlinks: without an uplink of its own
the bandwidth serves both directions, times `uplink_fraction` upwards.
"""

from __future__ import annotations

import bisect
import csv
import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgekit_runtime.errors import Refused, UsageError

DEFAULT_RTT_MS = 40.0
_BIN_S = 0.05  # mahimahi's packets are counted in bins of this length
_PACKET_MBIT = 1500 * 8e-6


class Series:
    """A rate in Mbit/s, constant between the given times, repeated for ever.

    Attributes:
        length_s: After which it begins anew.
    """

    def __init__(self, times_s: Sequence[float], mbps: Sequence[float]) -> None:
        """Takes one time more than rates; the first is 0."""
        self.times_s = [float(t) for t in times_s]
        self.mbps = [float(rate) for rate in mbps]
        self.length_s = self.times_s[-1]
        steps = np.diff(self.times_s) * np.asarray(self.mbps)
        self._mbit = [0.0, *np.cumsum(steps).tolist()]

    def at(self, time_s: float) -> float:
        """The rate at a time."""
        return self.mbps[self._place(time_s % self.length_s)]

    def finish(self, start_s: float, mbit: float) -> float:
        """When something of this size has left that starts then; infinite when nothing ever leaves."""
        whole = self._mbit[-1]
        if mbit <= 0:
            return start_s
        if whole <= 0:
            return math.inf
        cycle, inside = divmod(start_s, self.length_s)
        place = self._place(inside)
        goal = self._mbit[place] + (inside - self.times_s[place]) * self.mbps[place] + mbit
        more, rest = divmod(goal, whole)
        end = min(bisect.bisect_left(self._mbit, rest), len(self._mbit) - 1)
        if end == 0:
            return (cycle + more) * self.length_s
        left = self._mbit[end] - rest
        return (cycle + more) * self.length_s + self.times_s[end] - left / self.mbps[end - 1]

    def shifted(self, start_s: float) -> Series:
        """The same, beginning at another place."""
        start_s %= self.length_s
        place = self._place(start_s)
        later = [t - start_s for t in self.times_s[place + 1 :]]
        earlier = [t + self.length_s - start_s for t in self.times_s[1 : place + 1]]
        times = [0.0, *later, *earlier]
        rates = [*self.mbps[place:], *self.mbps[:place]]
        if times[-1] < self.length_s:
            times.append(self.length_s)
            rates.append(self.mbps[place])
        return Series(times, rates)

    def _place(self, inside_s: float) -> int:
        return max(min(bisect.bisect_right(self.times_s, inside_s), len(self.mbps)) - 1, 0)


class Trace:
    """One recorded link: both directions and the round trip."""

    def __init__(self, name: str, up: Series, down: Series, rtt_ms: Series) -> None:
        self.name, self.up, self.down, self.rtt_ms = name, up, down, rtt_ms

    @property
    def length_s(self) -> float:
        """Until the uplink begins anew."""
        return self.up.length_s

    def shifted(self, start_s: float) -> Trace:
        """The same, beginning at another place."""
        return Trace(self.name, self.up.shifted(start_s), self.down.shifted(start_s), self.rtt_ms.shifted(start_s))


def constant(rtt_ms: float, mbps: float, downlink_mbps: float | None = None) -> Trace:
    """A link that never changes."""
    down = mbps if downlink_mbps is None else downlink_mbps
    name = f"rtt={rtt_ms:g},mbps={mbps:g}"
    return Trace(name, Series((0, 60), (mbps,)), Series((0, 60), (down,)), Series((0, 60), (rtt_ms,)))


def read_traces(path: str | Path, uplink_fraction: float = 1.0) -> list[Trace]:
    """Reads one file, or all of a zip.

    Args:
        path: A file, a `.zip`, or `FILE.zip:NAME`.
        uplink_fraction: Uplink over bandwidth where the file has one bandwidth only.

    Raises:
        UsageError: There is no such file.
        Refused: It is none of the formats, or a number in it makes no sense.
    """
    text = str(path)
    archive, _, member = text.partition(".zip:")
    if member:
        found = [trace for trace in read_traces(archive + ".zip", uplink_fraction) if trace.name == member]
        if not found:
            raise UsageError(f"{archive}.zip holds no {member}", remedy=f"unzip -l {archive}.zip lists what it holds")
        return found
    file = Path(text)
    if not file.is_file():
        raise UsageError(f"there is no trace {text}", remedy="a .json, .csv, mahimahi or two-column file, or a .zip")
    if file.suffix != ".zip":
        return [_parse(file.name, file.read_text(errors="replace"), file, uplink_fraction)]
    try:
        with zipfile.ZipFile(file) as archive_file:
            return [
                _parse(entry, archive_file.read(entry).decode(errors="replace"), None, uplink_fraction)
                for entry in sorted(archive_file.namelist())
                if not entry.endswith("/")
            ]
    except zipfile.BadZipFile as error:
        raise Refused(f"{text} is not a zip file", remedy="name a trace, or a zip of traces") from error


def read_link(text: str, uplink_fraction: float = 1.0, option: str = "--link") -> list[Trace]:
    """`rtt=40,mbps=8[,down=20]`, or what `read_traces` takes.

    Args:
        text: As above.
        uplink_fraction: As `read_traces` takes it.
        option: That it was given with, named in errors.

    Raises:
        UsageError: A key or a number that is not understood.
    """
    if "=" not in text:
        return read_traces(text, uplink_fraction)
    keys = pairs(option, text, ("rtt", "mbps", "down"))
    if "mbps" not in keys:
        raise UsageError(f"{option} {text} has no mbps", remedy="rtt=40,mbps=8")
    return [constant(keys.get("rtt", DEFAULT_RTT_MS), keys["mbps"], keys.get("down"))]


def pairs(option: str, text: str, known: Sequence[str]) -> dict[str, float]:
    """Reads `name=number,...`.

    Raises:
        UsageError: An unknown name or what is no number from 0 up.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = math.nan
        if name.strip() not in known or not 0 <= found[name.strip()] < math.inf:
            raise UsageError(f"{option} has {part!r}", remedy=f"numbers from 0 up for: {', '.join(known)}")
    return found


def _parse(name: str, text: str, file: Path | None, uplink_fraction: float) -> Trace:
    suffix = Path(name).suffix
    try:
        if suffix == ".json":
            return _sabre(name, text, uplink_fraction)
        if suffix == ".csv":
            return _table(name, text, uplink_fraction)
        if suffix in (".up", ".down"):
            return _mahimahi(name, text, file)
        return _two_columns(name, text, uplink_fraction)
    except (ValueError, KeyError, TypeError, IndexError, msgspec.MsgspecError) as error:
        raise Refused(
            f"{name} is not a trace that can be read: {error}",
            remedy="a JSON list of {duration_ms, bandwidth_kbps, latency_ms}, a CSV with time_s and uplink_mbps, "
            "mahimahi, or two columns of seconds and Mbit/s",
        ) from error


def _sabre(name: str, text: str, uplink_fraction: float) -> Trace:
    rows: list[dict[str, float]] = msgspec.json.decode(text, type=list[dict[str, float]])
    times = [0.0, *np.cumsum([row["duration_ms"] / 1e3 for row in rows]).tolist()]
    mbps = [row["bandwidth_kbps"] / 1e3 for row in rows]
    # The traces' latency is one way by their authors' use (Sabre adds it once a request): a round trip is what counts.
    rtt = [row["latency_ms"] for row in rows]
    return _made(name, times, [rate * uplink_fraction for rate in mbps], mbps, rtt)


def _table(name: str, text: str, uplink_fraction: float) -> Trace:
    rows = _rows(text)
    up_name = "uplink_mbps" if "uplink_mbps" in rows[0] else "mbps"
    if up_name not in rows[0]:
        raise ValueError(f"it has no column uplink_mbps, it has {', '.join(map(repr, rows[0]))}")
    times = [float(row["time_s"]) for row in rows]
    times = [time - times[0] for time in times]
    up = [float(row[up_name]) * (1.0 if up_name == "uplink_mbps" else uplink_fraction) for row in rows[:-1]]
    down_name = "downlink_mbps" if "downlink_mbps" in rows[0] else up_name
    down = [float(row[down_name]) for row in rows[:-1]]
    rtt = [float(row.get("rtt_ms") or DEFAULT_RTT_MS) for row in rows[:-1]]
    return _made(name, times, up, down, rtt)


def _rows(text: str) -> list[dict[str, Any]]:
    """Rows of a CSV with a header and a column `time_s`.

    Raises:
        ValueError: It has fewer than two rows, which would not tell how long anything lasts, or no such column.
    """
    rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    if len(rows) < 2:
        raise ValueError(f"it has {len(rows)} rows below its header, and needs two or more: the last one ends it")
    if "time_s" not in rows[0]:
        raise ValueError(f"it has no column time_s, it has {', '.join(map(repr, rows[0]))}")
    return rows


def _two_columns(name: str, text: str, uplink_fraction: float) -> Trace:
    rows = [[float(cell) for cell in line.split()] for line in text.splitlines() if line.strip()]
    seconds = {row[0]: row[1] for row in rows}  # some recorders write a second twice: the later row stands
    mbps = list(seconds.values())
    times = [second - rows[0][0] for second in seconds]
    times.append(times[-1] + (times[-1] - times[-2]))
    return _made(name, times, [rate * uplink_fraction for rate in mbps], mbps, [DEFAULT_RTT_MS] * len(mbps))


def _mahimahi(name: str, text: str, file: Path | None) -> Trace:
    own = _binned(text)
    other_suffix = ".down" if name.endswith(".up") else ".up"
    beside = file.with_suffix(other_suffix) if file is not None else None
    other = _binned(beside.read_text()) if beside is not None and beside.is_file() else own
    up, down = (own, other) if name.endswith(".up") else (other, own)
    return Trace(name, up, down, Series((0, up.length_s), (DEFAULT_RTT_MS,)))


def _binned(text: str) -> Series:
    at_ms = np.array([int(line) for line in text.split()])
    edges = np.arange(0, at_ms[-1] / 1e3 + _BIN_S, _BIN_S)
    counts, _ = np.histogram(at_ms / 1e3, bins=np.append(edges, edges[-1] + _BIN_S))
    return Series(np.append(edges, edges[-1] + _BIN_S).tolist(), (counts * _PACKET_MBIT / _BIN_S).tolist())


def _made(name: str, times: list[float], up: list[float], down: list[float], rtt: list[float]) -> Trace:
    numbers = (*up, *down, *rtt)
    if not up or any(not 0 <= number < math.inf for number in numbers) or any(np.diff(times) <= 0):
        raise ValueError("rates, times and latencies must be numbers from 0 up, and time must go on")
    return Trace(name, Series(times, up), Series(times, down), Series(times, rtt))


class LoadTrace:
    """Utilisation of the device and of the server by others, over time."""

    def __init__(self, device: Series, server: Series) -> None:
        self.device, self.server = device, server

    @classmethod
    def constant(cls, device: float = 0.0, server: float = 0.0) -> LoadTrace:
        """A load that never changes."""
        return cls(Series((0, 60), (device,)), Series((0, 60), (server,)))

    @classmethod
    def steps(cls, rows: Sequence[tuple[float, float, float]]) -> LoadTrace:
        """From (seconds it lasts, device, server) in order."""
        times = [0.0, *np.cumsum([row[0] for row in rows]).tolist()]
        return cls(Series(times, [row[1] for row in rows]), Series(times, [row[2] for row in rows]))


_LOAD_COLUMNS = ("time_s", "device_utilisation", "server_utilisation")


def read_load(path: str | Path) -> LoadTrace:
    """A CSV with the header `time_s, device_utilisation, server_utilisation`; or `device=0.5,server=0.9`.

    Raises:
        UsageError: There is no such file, or a utilisation outside 0 to 1.
        Refused: It is not such a table.
    """
    text = str(path)
    if "=" in text:
        keys = pairs("--load", text, ("device", "server"))
        _check_utilisation(text, keys.values())
        return LoadTrace.constant(keys.get("device", 0.0), keys.get("server", 0.0))
    file = Path(text)
    if not file.is_file():
        raise UsageError(f"there is no load {text}", remedy="a CSV, or device=0.5,server=0.9")
    try:
        rows = _rows(file.read_text())
        times = [float(row["time_s"]) - float(rows[0]["time_s"]) for row in rows]
        unknown = [repr(name) for name in rows[0] if name not in _LOAD_COLUMNS]
        if unknown:  # a column of another name would be a load that is never there
            raise ValueError(f"it has no use for {', '.join(unknown)}")
        if len(rows[0]) < 2:
            raise ValueError("it has neither device_utilisation nor server_utilisation")
        device = [float(row.get("device_utilisation") or 0) for row in rows[:-1]]
        server = [float(row.get("server_utilisation") or 0) for row in rows[:-1]]
        if any(np.diff(times) <= 0):
            raise ValueError("time must go on from row to row")
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{file.name} is not a load that can be read: {error}",
            remedy="a CSV with the header time_s,device_utilisation,server_utilisation; the last row ends it",
        ) from error
    _check_utilisation(file.name, (*device, *server))
    return LoadTrace(Series(times, device), Series(times, server))


def _check_utilisation(what: str, values: Any) -> None:
    wrong = [value for value in values if not 0 <= value < 1]
    if wrong:
        raise UsageError(f"{what}: a utilisation is {wrong[0]:g}", remedy="from 0 to below 1")
