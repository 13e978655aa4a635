"""The page of one comparison: verdict first, the ratio with its interval, both distributions, the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgekit.files import write_texts
from edgekit.profiler.comparison import Comparison, equivalent
from edgekit.profiler.statistics import spread
from edgekit.report import charts, numbers
from edgekit.report.write import environment, markdown

SENTENCES = {
    "faster": "A is faster than B",
    "slower": "A is slower than B",
    "no_difference_shown": "No difference shown",
    "too_noisy": "Too noisy to tell",
}


def write_comparison(found: Comparison, folder: str | Path) -> tuple[Path, ...]:
    """Writes `index.html`, `comparison.md` and `comparison.json`. The page is one file that needs no network.

    Args:
        found: What `edgekit.compare` found.
        folder: Made if it does not exist. Earlier files of the same names are replaced.

    Returns:
        The files written, the page first.

    Raises:
        UsageError: The folder cannot be written.
        Refused: The package that makes the pages is not installed.
    """
    templates = environment()
    shown = {
        "found": found,
        "title": title(found),
        "ratio_chart": ratios(found),
        "sides": [
            {"name": "A", "label": found.a, "ms": found.a_ms, "blocks": blocks(found, "a")},
            {"name": "B", "label": found.b, "ms": found.b_ms, "blocks": blocks(found, "b")},
        ],
        "distribution": distribution,
        "spread": spread,
        "foreign": float(np.mean([run.foreign_cores for run in found.runs])),
    }
    files = {
        "index.html": templates.get_template("comparison.html.j2").render(**shown),
        "comparison.md": text(found),
        "comparison.json": msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n",
    }
    return write_texts(Path(folder), files, "the report")


def title(found: Comparison) -> str:
    """The verdict as a person would say it."""
    if found.verdict == "no_difference_shown" and equivalent(found.interval_95, found.margin_fraction):
        return f"Equal within {found.margin_fraction:.1%}"
    return SENTENCES[found.verdict]


def blocks(found: Comparison, side: str) -> tuple[float, ...]:
    """Latencies of all blocks of `a` or `b` in ms, round after round."""
    return tuple(value for run in found.runs for value in getattr(run, f"{side}_blocks_ms"))


def distribution(values: Sequence[float], together: Sequence[float]) -> charts.Markup:
    """Histogram of the blocks of one side, over the range of both."""
    return charts.histogram(values, float(np.median(values)), None, over=together)


def ratios(found: Comparison) -> charts.Markup:
    """The ratio of each round, with that of all, its interval and the margin."""
    low, high = found.interval_95
    margin = (1 / (1 + found.margin_fraction), 1 + found.margin_fraction)
    return charts.ratios([run.ratio for run in found.runs], found.ratio, (low, high), margin)


def text(found: Comparison) -> str:
    """The same in Markdown."""
    low, high = found.interval_95
    lines = [
        f"# {title(found)}",
        "",
        *(f"- {markdown(reason)}" for reason in found.reasons),
        "",
        "| | median ms | graph |",
        "|---|---|---|",
        f"| A | {numbers.significant(found.a_ms)} | {markdown(found.a)} |",
        f"| B | {numbers.significant(found.b_ms)} | {markdown(found.b)} |",
        "",
        f"A / B: {found.ratio:.3f} (95 % interval {low:.3f} to {high:.3f}, margin {found.margin_fraction:.1%}), "
        f"{len(found.runs)} rounds of fresh processes in {found.seconds:.0f} s.",
    ]
    return "\n".join(lines) + "\n"
