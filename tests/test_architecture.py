"""The promises that hold the house together: who may import whom, what is public, what costs nothing."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit
import edgekit_runtime
from edgekit.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "edgekit_runtime": ROOT / "runtime" / "edgekit_runtime",
    "edgekit_converters": ROOT / "converters" / "edgekit_converters",
    "edgekit": ROOT / "edgekit",
}
# What a floor may import of the project: itself and what lies below.
BELOW = {
    "edgekit_runtime": {"edgekit_runtime"},
    "edgekit_converters": {"edgekit_runtime", "edgekit_converters"},
    "edgekit": {"edgekit_runtime", "edgekit_converters", "edgekit"},
}
HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "litert_torch", "ai_edge_quantizer", "transformers"}
HEAVY |= {"onnxruntime", "ai_edge_litert", "tensorflow", "sklearn", "scipy"}
RUNTIME_NEVER = HEAVY | {"typer", "rich", "click", "jinja2"}
# Module-level imports of heavy packages that are meant. Students are torch modules: their files are their definition,
# and nothing imports them before a student is built.
HEAVY_ALLOWED = {"edgekit.students": {"torch"}, "edgekit.training": {"torch"}, "edgekit.demo.models": {"torch"}}
# The engine torch is a table of torch's functions; it is loaded by name, where a card and no other engine is there.
HEAVY_ALLOWED |= {f"edgekit_runtime.engines.torch_{part}": {"torch", "onnx"} for part in ("cuda", "ops", "layers")}
RUNTIME_SURFACE = [
    "Bundle",
    "BundleInvalid",
    "Choice",
    "Decision",
    "EdgekitError",
    "EngineMissing",
    "GateFailed",
    "InputMismatch",
    "Machine",
    "Policy",
    "Reason",
    "Refused",
    "Result",
    "Session",
    "Timing",
    "Unreachable",
    "UsageError",
    "open",
    "open_bundle",
    "pack",
    "this_machine",
]
EDGEKIT_SURFACE = ["__version__", "check", "compare", "convert", "open_bundle", "profile", "runtime"]


def modules() -> Iterator[tuple[str, str, Path]]:
    """(package, dotted name, path) of every module of the three floors."""
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield package, ".".join((package, *parts)).removesuffix(".__init__"), path


def imported(tree: ast.AST, own: str, *, top_level_only: bool) -> Iterator[str]:
    """Dotted names that a module imports. Blocks under TYPE_CHECKING do not run and do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield own.rsplit(".", node.level)[0] if node.level else str(node.module)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not top_level_only or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imported(node, own, top_level_only=top_level_only)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_the_walk_finds_all_three_packages() -> None:
    assert {package for package, _, _ in modules()} == set(PACKAGES)
    assert sum(1 for _ in modules()) > 60


@pytest.mark.parametrize("package", list(PACKAGES))
def test_imports_go_down_only(package: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for owner, name, path in modules()
        if owner == package
        for target in imported(parse(path), name, top_level_only=False)
        if target.split(".")[0] in PACKAGES and target.split(".")[0] not in BELOW[package]
    ]
    assert wrong == []


def test_the_runtime_never_names_a_conversion_tool() -> None:
    engines = {"onnxruntime", "ai_edge_litert"}
    wrong = [
        f"{name} imports {target}"
        for package, name, path in modules()
        if package == "edgekit_runtime"
        for target in imported(parse(path), name, top_level_only=False)
        if target.split(".")[0] in RUNTIME_NEVER - engines - HEAVY_ALLOWED.get(name, set())
    ]
    assert wrong == []


def test_heavy_packages_are_imported_inside_functions() -> None:
    wrong = []
    for _, name, path in modules():
        allowed = next((found for prefix, found in HEAVY_ALLOWED.items() if f"{name}.".startswith(f"{prefix}.")), set())
        for target in imported(parse(path), name, top_level_only=True):
            if target.split(".")[0] in HEAVY - allowed:
                wrong.append(f"{name} imports {target} at module level")
    assert wrong == []


def test_a_forbidden_import_would_be_seen() -> None:
    source = "import torch.nn\ndef f():\n    import onnx\nclass C:\n    import jax\nif TYPE_CHECKING:\n    import ort\n"
    tree = ast.parse(source)
    assert list(imported(tree, "m", top_level_only=True)) == ["torch.nn", "jax"]
    assert list(imported(tree, "m", top_level_only=False)) == ["torch.nn", "onnx", "jax"]


def test_the_public_surface_of_the_runtime_is_the_one_written_here() -> None:
    assert sorted(edgekit_runtime.__all__) == RUNTIME_SURFACE
    assert all(getattr(edgekit_runtime, name).__doc__ for name in RUNTIME_SURFACE)


def test_the_public_surface_of_edgekit_is_the_one_written_here() -> None:
    assert sorted(edgekit.__all__) == EDGEKIT_SURFACE
    assert all(getattr(edgekit, name) is not None for name in EDGEKIT_SURFACE)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    headings = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert project is not None
    assert headings[0] == edgekit.__version__ == project[1]


def test_no_tracked_file_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there are no tracked files to look at")
    # /home/me/ is nobody's: tests feed it to what reads paths out of the messages of other tools.
    place = re.compile(rb"(?<![\w.])/(?:home/(?!me/)|Users/|root/|work/|mnt/|workspace/)[\w.-]")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__):
            match = place.search(path.read_bytes())
            if match:
                found.append(f"{name}: {match[0].decode(errors='replace')}")
    assert found == []


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_is_there_and_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from edgekit.cli.app import run

    importlib.import_module(f"edgekit.cli.commands.{COMMANDS[command][0]}")
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"edgekit {command}" in shown.split("Example:")[1]
    assert "--json" in shown
    assert "--quiet" in shown


def loaded_after(code: str) -> set[str]:
    """Top-level packages in sys.modules after running some code in a fresh interpreter."""
    tell = "import sys, json; sys.stderr.write(json.dumps([name.split('.')[0] for name in sys.modules]))"
    program = f"{code}\n{tell}"
    paths = ":".join(str(folder.parent) for folder in PACKAGES.values())
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env={"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import edgekit",
        "import edgekit_runtime",
        "import edgekit_converters",
        "from edgekit.cli.app import run\nassert run(['--help']) == 0",
        "from edgekit.cli.app import run\nassert run(['convert', '--help']) == 0",
        "from edgekit.cli.app import run\nassert run(['convert', 'nowhere.py:x', '-o', 'a.txt']) == 2",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    assert loaded_after(code) & HEAVY == set()


def test_import_edgekit_loads_no_command_line() -> None:
    assert loaded_after("import edgekit") & {"typer", "rich", "numpy"} == set()


def test_the_runtime_is_one_module_under_both_its_names() -> None:
    code = (
        "import edgekit.runtime as one, edgekit_runtime as other; from edgekit import runtime as third; "
        "assert one is other is third; import sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
