"""Markdown tables and the line that says on what machine a page was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgekit_converters.versions import tool_versions
from edgekit_runtime import this_machine


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def target(text: str, ok: bool) -> tuple[str, str]:
    return text, "met" if ok else "**missed**"


def environment_lines() -> list[str]:
    machine = this_machine()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(tool_versions().items()))
    return [
        f"Machine: {machine.cpu}, {os.cpu_count()} cores; flags used by the engines: {', '.join(machine.isa)}.",
        f"Versions: {versions}.",
    ]
