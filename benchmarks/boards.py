"""Fits the rates of board profiles to one half of the published figures and back-tests them on the other.

    python -m benchmarks.boards        prints the [[rates]] that the fit gives, to be put into the profiles

Of each device, engine, precision and number of threads the rates of its families are fitted together, with a pull
towards the usual fractions of the peak, as a network of one kind says little about the others. `use = "held_out"` rows
take no part in it, and the rates in the profiles are held to this fit by the page.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import networks
from edgekit import devices
from edgekit.devices import efficiency, toml
from edgekit.devices.families import PRODUCTS, Family, cell
from edgekit.devices.prediction import Estimate, estimate
from edgekit.devices.profile import DeviceProfile, Figure, Published, Rate
from edgekit.students.data import folder
from edgekit_runtime.errors import UsageError
from edgekit_runtime.measurement import OpCost

_NOISE, _PULL = 0.1, 0.5  # standard deviations of the logarithms: of a published figure, of a fraction of the peak


@dataclasses.dataclass(frozen=True)
class Row:
    """A published figure with the operators of its network."""

    profile: DeviceProfile
    published: Published
    ops: tuple[OpCost, ...]

    @property
    def threads(self) -> int:
        return self.published.threads or int(self.profile.hardware.cores.value)

    def predicted(self, profile: DeviceProfile | None = None) -> Estimate:
        # "int8" of a row tells its products; what is left in floating point is fp32.
        precision = "fp32" if self.published.precision == "int8" else self.published.precision
        return estimate(
            profile or self.profile, self.ops, engine=self.published.engine, precision=precision, threads=self.threads
        )


def rows() -> list[Row]:
    """All published figures of the profiles whose networks are known here."""
    try:
        data: Path | None = folder()
    except UsageError:  # it is not here: without its files those networks are left out
        data = None
    found = []
    for name in devices.known():
        profile = devices.load(name)
        for published in profile.published:
            ops = networks.ops(published.model, int8=published.precision == "int8", data=data)
            if ops is not None:
                found.append(Row(profile, published, ops))
    return found


def pairs(all_rows: Sequence[Row], *, use: str) -> Iterator[tuple[Row, Row]]:
    """The fp32 and the int8 figure of one network, board, engine and number of threads, both marked `use`."""

    def key(row: Row) -> tuple[str, str, int, str]:
        return row.profile.name, row.published.engine, row.threads, row.published.model

    chosen = [row for row in all_rows if row.published.use == use]
    int8 = {key(row): row for row in chosen if row.published.precision == "int8"}
    for row in chosen:
        if row.published.precision == "fp32" and key(row) in int8:
            yield row, int8[key(row)]


def groups(all_rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that are fitted together."""
    keys = {(r.profile.name, r.published.engine, r.published.precision, r.threads) for r in all_rows}
    for key in sorted(keys):
        yield [r for r in all_rows if (r.profile.name, r.published.engine, r.published.precision, r.threads) == key]


def fit(group: Sequence[Row]) -> tuple[Rate, ...]:
    """Rates of one device, engine, precision and number of threads from the rows marked `fit`; () without any."""
    from scipy.optimize import least_squares

    used = [row for row in group if row.published.use == "fit"]
    if not used:
        return ()
    families = _families(used)
    first = used[0]
    usual = np.array([_usual(first, family) for family in families])

    def profile_at(deltas: np.ndarray) -> DeviceProfile:
        rates = tuple(_rate(first, used, f, r) for f, r in zip(families, usual * np.exp(deltas), strict=True))
        return msgspec.structs.replace(first.profile, rates=rates)

    def residuals(deltas: np.ndarray) -> np.ndarray:
        profile = profile_at(deltas)
        errors = [math.log(row.predicted(profile).ms / row.published.latency_ms.value) for row in used]
        return np.concatenate([np.array(errors) / _NOISE, deltas / _PULL])

    found = least_squares(residuals, np.zeros(len(families)))
    return tuple(
        msgspec.structs.replace(
            rate, gmacs_per_s=msgspec.structs.replace(rate.gmacs_per_s, value=float(f"{rate.gmacs_per_s.value:.4g}"))
        )
        for rate in profile_at(found.x).rates
    )


def _families(used: Sequence[Row]) -> list[Family]:
    share: dict[Family, int] = {}
    for row in used:
        for op in row.ops:
            each = cell(op)
            if each.family in PRODUCTS and each.macs:
                share[each.family] = share.get(each.family, 0) + each.macs
    return [family for family in PRODUCTS if share.get(family, 0) > 0]


def _usual(row: Row, family: Family) -> float:
    precision = row.published.precision
    peak = row.profile.peak_gmacs_per_s(precision)
    assert peak is not None, f"{row.profile.name} has figures to fit in {precision} and no peak"
    fractions = efficiency.FRACTIONS["int8" if precision == "int8" else "float"]
    return peak * fractions[family] * (1 + efficiency.THREAD_GAIN * (row.threads - 1))


def _rate(row: Row, used: Sequence[Row], family: Family, gmacs: float) -> Rate:
    models = ", ".join(sorted({each.published.model for each in used}))
    return Rate(
        engine=row.published.engine,
        precision=row.published.precision,
        family=family,
        threads=row.threads,
        gmacs_per_s=Figure(
            value=gmacs,
            kind="derived",
            source=f"fitted to the figures of {models} marked fit below",
        ),
    )


def main() -> None:
    everything = rows()
    fractions: dict[tuple[str, str], list[float]] = {}
    for group in groups(everything):
        for rate in fit(group):
            entry = {"rates": [msgspec.to_builtins(rate)]}
            print(f"# {group[0].profile.name}\n" + toml.dumps(entry, "").removeprefix("# \n"))
            usual = _usual(group[0], rate.family)
            kind = "int8" if rate.precision == "int8" else "float"
            share = rate.gmacs_per_s.value / usual * efficiency.FRACTIONS[kind][rate.family]
            fractions.setdefault((kind, rate.family), []).append(share)
    for key, shares in sorted(fractions.items()):
        print(*key, f"median {np.median(shares):.3f}", " ".join(f"{share:.2f}" for share in sorted(shares)))


if __name__ == "__main__":
    main()
