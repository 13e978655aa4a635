"""The command line: one explicit table of commands, one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import io
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from edgekit.cli.extras import refusal
from edgekit.cli.pipes import ReaderGone, to_nowhere
from edgekit_runtime.errors import EdgekitError, Refused, UsageError

# Command name -> module under edgekit.cli.commands, loaded only when called: `edgekit --help` stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("convert", "student to bundle"),
    "check": ("check", "before any work: what will convert, what becomes int8, what stands against it"),
    "doctor": ("doctor", "this machine: engines, instruction set, sensors, what is missing"),
    "inspect": ("inspect", "what is in a bundle"),
    "verify": ("verify", "hashes and golden inputs on this machine's engines"),
    "profile": ("profile", "measure a bundle or a bare graph"),
    "report": ("report", "HTML, Markdown, JSON and CSV over measured bundles"),
    "compare": ("compare", "is A faster than B? paired and interleaved"),
    "devices": ("devices", "device profiles and their sources"),
    "slim": ("slim", "only what one kind of device needs"),
    "calibrate-exits": ("calibrate_exits", "certified thresholds for early exits"),
    "agent": ("agent", "on a device: lets a workstation profile there"),
    "run": ("run", "one or many requests through a bundle"),
    "plan": ("plan", "which action wins where, by link and load"),
    "why": ("why", "the reasons of recorded decisions"),
    "serve": ("serve", "the tail side: bundles over gRPC (KServe V2)"),
    "export-server": ("export_server", "a bundle for Triton or KServe"),
    "simulate": ("simulate", "policies against the oracle on recorded links and loads"),
    "demo": ("demo", "the whole path on one student"),
}

# Newer typers carry their own click inside, older ones import it; the class is found through typer either way.
ClickError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

INTERRUPTED, READER_GONE, TERMINATED = 130, 141, 143  # 128 + SIGINT, SIGPIPE and SIGTERM, as shells count

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgekit.cli.commands.{COMMANDS[cmd_name][0]}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=cmd_name)(module.command)
        return typer.main.get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list under `edgekit --help`, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("edgekit"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Takes a trained student to edge devices: converts, proves, measures, runs."""


def fail(error: EdgekitError, json: bool) -> int:
    """Prints an error the way the contract says and returns its exit code."""
    if json:
        body: dict[str, Any] = {"error": {"kind": error.kind, "message": error.message, "remedy": error.remedy}}
        sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
    else:
        sys.stderr.write(f"edgekit: {error.message}\n")
        if error.remedy:
            sys.stderr.write(f"  what to do: {error.remedy}\n")
    return error.exit_code


def _interrupted() -> int:
    sys.stderr.write("edgekit: interrupted; nothing half-written was left behind\n")
    return INTERRUPTED


@contextlib.contextmanager
def _terminable() -> Iterator[list[int]]:
    """SIGTERM ends a command as Ctrl-C does, so that it cleans up; yields a list that then holds the signal.

    Only the main thread can do so, and a process that was started to ignore SIGTERM goes on to.
    """
    ended: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield ended
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the cleaning up is not cut short
        ended.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGTERM, before)


def run(arguments: list[str]) -> int:
    """Runs one command line and returns the exit code (0 done, 1 bug, 2 usage, 3 refused, 4 gate, 5 unreachable).

    Ctrl-C gives 130 and SIGTERM 143, both after what was half-written is removed; servers end with 0 by either. Output
    that nobody reads any more (`| head`) gives 141 without a word, as with other Unix tools.
    """
    _readable_anywhere()
    with _terminable() as ended:
        code = _run(arguments)
    return TERMINATED if ended and code == INTERRUPTED else code


def _readable_anywhere() -> None:
    """On a terminal that is not UTF-8, what it cannot show becomes `?` instead of an error in the middle of a table."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="replace")


def _run(arguments: list[str]) -> int:
    json = "--json" in arguments
    try:
        code = int(app(arguments, prog_name="edgekit", standalone_mode=False) or 0)
        # typer turns Ctrl-C into this exit code on its own and says nothing.
        return _interrupted() if code == INTERRUPTED else code
    except EdgekitError as error:
        return fail(error, json)
    except ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]  # click's own: prints the help
            return UsageError.exit_code
        text = error.format_message()  # type: ignore[attr-defined]  # click's own
        return fail(UsageError(text, remedy=_help_of(error, arguments)), json)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except ReaderGone:
        to_nowhere()
        return READER_GONE
    except OSError as error:
        told = _disk(error)
        return fail(told, json) if told else _bug(error, json)
    except ModuleNotFoundError as error:
        missed = refusal(error)
        return fail(missed, json) if missed else _bug(error, json)
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever escapes is a bug and must say so
        return _bug(error, json)


def _help_of(error: Exception, arguments: list[str]) -> str:
    """Where to look after wrong usage: the command's own help, or the command that was meant."""
    said = next((word for word in arguments if not word.startswith("-")), "")
    if said and said not in COMMANDS:
        near = difflib.get_close_matches(said, COMMANDS, 1)
        return f"did you mean edgekit {near[0]}?" if near else f"one of: {', '.join(COMMANDS)}"
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else f'edgekit {said}'.strip()} --help"


# What the machine says no to, wherever a command meets it: no bug, and nothing a traceback would help with.
_DISK = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "see who may read and write there (ls -ld), or choose another place",
    errno.EPERM: "see who may read and write there (ls -ld), or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def _disk(error: OSError) -> Refused | None:
    """An error of the disk in words; None where it may be a bug."""
    remedy = _DISK.get(error.errno or 0)
    if remedy is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return Refused(f"{where}{error.strerror}", remedy=remedy)


def _bug(error: Exception, json: bool) -> int:
    traceback.print_exception(error)
    bug = EdgekitError(
        f"unexpected {type(error).__name__}: {error}",
        remedy="this is a bug in edgekit: please report it with the lines above and `edgekit doctor --json`",
    )
    bug.kind = "unexpected"
    return fail(bug, json)
