"""Whether what a step of a page left is still today's answer: a hash of everything that the answer hangs on.

    convert   converters, runtime, the student's own files, the weights and data it is converted from
    stock     the tools' versions and how they are called, the student's own files
    speed     how is timed, and what the two before made
    twin      converters, runtime, and what a program of integers was converted to
    places    as convert, of the tiny student and without data (`cuts`)
    chain     the same, and how is timed

Code counts by its syntax tree without docstrings: what is only said otherwise makes no row again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import threading
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekit.students.registry import Student
from edgekit_converters.versions import tool_versions

ROOT = Path(__file__).parent.parent
STUDENTS = "edgekit.students"
CODE = {
    "train": (),
    "convert": (
        "converters",
        "runtime",
        "edgekit/converting.py",
        "benchmarks/rows.py",
        "benchmarks/material.py",
        "benchmarks/cells.py",
        "benchmarks/held.py",
        "benchmarks/resnet.py",
    ),
    "stock": (
        "converters/edgekit_converters/capture",
        "converters/edgekit_converters/captured.py",
        "converters/edgekit_converters/stock.py",
        "runtime/edgekit_runtime/engines",
        "benchmarks/rows.py",
        "benchmarks/material.py",
        "benchmarks/stock.py",
        "benchmarks/rivals.py",
    ),
    "speed": ("runtime", "benchmarks/rows.py", "benchmarks/material.py", "benchmarks/alternate.py"),
    "twin": ("converters", "runtime", "benchmarks/twins.py", "benchmarks/material.py", "benchmarks/alternate.py"),
    "places": ("converters", "runtime", "edgekit/converting.py", "benchmarks/cut_steps.py"),
    "chain": ("benchmarks/alternate.py", "benchmarks/material.py"),
}
# Steps whose files a step reads.
BEFORE = {
    "train": (),
    "convert": (),
    "stock": (),
    "speed": ("convert", "stock"),
    "twin": ("convert",),
    "places": (),
    "chain": ("places",),
}
RIVALS = ("openvino", "nncf")
# Packages of the runtime that only a session with a server loads.
SERVED = ("runtime/edgekit_runtime/adaptive", "runtime/edgekit_runtime/remote")
# CPython 3.11 counts the depth of all syntax trees that are being made in one place: in two threads at once `ast.parse`
# ends in a SystemError now and then.
ONE_AT_A_TIME = threading.Lock()
# Rows whose data come without training, from functions of these modules.
DATA = {24: ("picture_tasks",)}


def fingerprint(step: str, student: Student, material: Path | None) -> str:
    """Hex digest of what a step's file depends on.

    Args:
        step: A key of `CODE`.
        student: Whose row it is.
        material: Folder of trained weights and data; None: seeded weights.
    """
    with ONE_AT_A_TIME:
        return _fingerprint(step, student, _content(material) if material is not None else "seeded")


def _fingerprint(step: str, student: Student, content: str) -> str:
    parts = [step, repr(student), repr(_versions())]
    if step != "train":  # weights are trained once and stay
        parts += [*(tree(path) for path in files(CODE[step])), *(tree(path) for path in closure(student))]
    if step == "convert":  # the stock tools get seeded weights
        parts.append(content)
    parts += [_fingerprint(before, student, content) for before in BEFORE[step]]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def of_code(places: Iterable[str], *told: str) -> str:
    """Digest of code, the versions of all tools, and what else is told: for pages whose steps are no students."""
    parts = [repr(_versions()), *(tree(path) for path in files(places)), *told]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def files(places: Iterable[str]) -> Iterator[Path]:
    """Python files, and those of folders, in order; of a folder that holds `SERVED` without these."""
    for place in places:
        path = ROOT / place
        if path.is_dir():
            inside = sorted(path.rglob("*.py"))
            yield from (file for file in inside if not any(file.is_relative_to(ROOT / served) for served in SERVED))
        else:
            yield path


def closure(student: Student) -> list[Path]:
    """Files of `edgekit.students` that a student is built from: its own, and what these import, however far."""
    wait = [student.source.split(":")[0].rpartition(".")[2], *DATA.get(student.row, ())]
    found: dict[str, Path] = {}
    while wait:
        name = wait.pop()
        path = ROOT / "edgekit" / "students" / f"{name}.py"
        if name in found or not path.is_file():
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == STUDENTS:
                wait += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{STUDENTS}."):
                wait.append(str(node.module).rpartition(".")[2])
    return [found[name] for name in sorted(found)]


@functools.cache
def tree(path: Path) -> str:
    """Digest of a Python file's syntax tree without docstrings: comments, layout and docstrings do not count."""
    return hashlib.sha256(ast.dump(undocumented(path.read_text(encoding="utf-8"))).encode()).hexdigest()


def undocumented(source: str) -> ast.Module:
    """The syntax tree of a source without its docstrings."""
    parsed = ast.parse(source)
    for node in ast.walk(parsed):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return parsed


@functools.cache
def _versions() -> dict[str, str]:
    found = dict(tool_versions())
    for package in RIVALS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _content(folder: Path) -> str:
    """Digest of the files of a folder, by name; none: of nothing."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        digest.update(f"{path.name}|{hashlib.sha256(path.read_bytes()).hexdigest()}|".encode())
    return digest.hexdigest()
