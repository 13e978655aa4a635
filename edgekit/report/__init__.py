"""Reports over measurements: HTML pages that open offline, Markdown, JSON and CSV."""

from __future__ import annotations

from edgekit.report.comparisons import write_comparison
from edgekit.report.write import check_ready, write_report

__all__ = ["check_ready", "write_comparison", "write_report"]
