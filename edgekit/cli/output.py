"""Where a command's words go: one JSON document on stdout under --json, everything else on stderr.

Every command receives an `Output`. `progress` shows a bar with an ETA on a terminal and plain lines elsewhere; `result`
prints the command's answer either as JSON or through the renderer the command gives.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from edgekit.cli.pipes import ReaderGone


class Steps:
    """Progress of a long command: `advance` names the step that begins."""

    def __init__(self, report: Callable[[str, int, int], None], total: int) -> None:
        self.total = total
        self.done = 0
        self._report = report

    def advance(self, label: str) -> None:
        """Says that the step `label` begins (and the one before has ended)."""
        # A total is an estimate: a step more than planned makes it one larger, so that no two steps have one number.
        self.total = max(self.total, self.done + 1)
        self._report(label, self.done, self.total)
        self.done += 1


class _Terminal(Console):
    """A console that says so when its reader has gone, instead of ending the process with 1."""

    def on_broken_pipe(self) -> None:
        raise ReaderGone


class Output:
    """The terminal, or a pipe, as one command sees it."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.out: Console = _Terminal(file=sys.stdout, highlight=False)
        self.err: Console = _Terminal(file=sys.stderr, highlight=False)

    def say(self, text: str) -> None:
        """A line for the person, on stderr; silent under --quiet."""
        if not self.quiet:
            self.err.print(text)

    def note(self, text: str) -> None:
        """As `say`, for text that may hold anything: nothing in it is markup."""
        if not self.quiet:
            self.err.print(text, markup=False)

    @contextlib.contextmanager
    def growing(self, title: str) -> Iterator[Steps]:
        """As `steps`, for work whose number of steps is told later by setting `total`."""
        with self.steps(title, 0) as steps:
            yield steps

    @contextlib.contextmanager
    def steps(self, title: str, total: int) -> Iterator[Steps]:
        """Shows progress over `total` steps while the block runs."""
        if self.quiet:
            yield Steps(lambda label, done, of: None, total)
            return
        if not self.err.is_terminal:
            yield Steps(lambda label, done, of: self.err.print(f"[{done + 1}/{of}] {label}", markup=False), total)
            return
        columns = (
            TextColumn("{task.description}", table_column=Column(width=34, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=12),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(title, total=max(total, 1))
            steps = Steps(lambda label, done, of: bar.update(task, completed=done, total=of, description=label), total)
            yield steps
            bar.update(task, completed=steps.total)

    def result(self, document: Any, render: Callable[[Console], None]) -> None:
        """Prints the answer: `document` as JSON under --json, else what `render` draws on stdout."""
        if self.json:
            try:
                sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
                sys.stdout.flush()
            except BrokenPipeError as error:
                raise ReaderGone from error
        else:
            render(self.out)
