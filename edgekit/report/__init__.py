"""Reports over measurements: HTML pages that open offline, Markdown, JSON and CSV."""

from __future__ import annotations

from edgekit.report.comparisons import write_comparison
from edgekit.report.write import write_report

__all__ = ["write_comparison", "write_report"]
