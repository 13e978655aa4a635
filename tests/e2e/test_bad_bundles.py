"""Bundles that were changed, cut or made to attack: every command that opens one refuses it with exit code 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit_runtime.manifest import dump, load

COMMANDS = ("inspect", "verify", "run")


def arguments(command: str, work: Path) -> tuple[str, ...]:
    if command != "run":
        return (command, "tiny.edge")
    np.savez(work / "request.npz", image=np.zeros((1, 1, 8, 8), np.float32))
    return ("run", "tiny.edge", "--input", "request.npz")


def change_byte(bundle: Path) -> None:
    path = bundle / "graphs" / "onnx.int8.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_graph(bundle: Path) -> None:
    (bundle / "graphs" / "onnx.int8.onnx").unlink()


def remove_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def cut_manifest(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])


def newer_schema(bundle: Path) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes()) | {"schema": "edgekit.bundle/2"}
    path.write_text(json.dumps(document), encoding="utf-8")


def unknown_key(bundle: Path) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes()) | {"surprise": 1}
    path.write_text(json.dumps(document), encoding="utf-8")


def escape(bundle: Path) -> None:
    (bundle.parent / "secret.onnx").write_bytes((bundle / "graphs" / "onnx.int8.onnx").read_bytes())
    manifest = load((bundle / "manifest.json").read_bytes())
    entry = manifest.files["graphs/onnx.int8.onnx"]
    graphs = tuple(msgspec.structs.replace(graph, path="../secret.onnx") for graph in manifest.graphs)
    changed = msgspec.structs.replace(manifest, graphs=graphs, files={**manifest.files, "../secret.onnx": entry})
    (bundle / "manifest.json").write_bytes(dump(changed))


def link(bundle: Path) -> None:
    path = bundle / "graphs" / "onnx.int8.onnx"
    path.rename(bundle.parent / "elsewhere.onnx")
    path.symlink_to(bundle.parent / "elsewhere.onnx")


def extra_file(bundle: Path) -> None:
    (bundle / "graphs" / "more.bin").write_bytes(b"weights from somewhere")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_byte, ("graphs/onnx.int8.onnx is not the file that was converted", "copy the bundle again")),
        (remove_graph, ("graphs/onnx.int8.onnx is missing",)),
        (remove_manifest, ("has no manifest.json",)),
        (cut_manifest, ("manifest.json is not readable",)),
        (newer_schema, ("edgekit.bundle/2", "edgekit.bundle/1", "upgrade")),
        (unknown_key, ("surprise",)),
        (escape, ("../secret.onnx", "out of its folder")),
        (link, ("symbolic link",)),
        (extra_file, ("graphs/more.bin is not listed",)),
    ],
)
def test_a_damaged_bundle_is_refused(
    edgekit: Any, bundle: Path, work: Path, command: str, damage: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    damage(bundle)
    done = edgekit(*arguments(command, work))
    assert done.code == 3, done.err
    done.says(*words)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bundle_that_does_not_exist_is_refused(edgekit: Any, work: Path, command: str) -> None:
    done = edgekit(*arguments(command, work))
    assert done.code == 3
    done.says("tiny.edge does not exist")


def test_verify_answers_with_its_checks_where_the_files_are_damaged(edgekit: Any, bundle: Path) -> None:
    change_byte(bundle)
    done = edgekit("verify", "tiny.edge", "--json")
    assert done.code == 3
    assert done.document["ok"] is False
    assert [check["name"] for check in done.document["checks"]] == ["files"], "nothing of a damaged bundle is run"


def test_an_error_under_json_is_one_document_with_the_same_exit_code(edgekit: Any, bundle: Path) -> None:
    change_byte(bundle)
    done = edgekit("inspect", "tiny.edge", "--json")
    assert done.code == 3
    assert set(done.document) == {"error"}
    assert set(done.document["error"]) == {"kind", "message", "remedy"}
    assert done.document["error"]["kind"] == "bundle_invalid"
    assert done.err == ""


def test_a_bug_says_that_it_is_one(edgekit: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.cli.commands import verify

    def broken(path: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(verify, "verify_bundle", broken)
    done = edgekit("verify", "tiny.edge", "--json")
    assert done.code == 1
    assert done.document["error"]["kind"] == "unexpected"
    done.says("ZeroDivisionError", "report it", "Traceback")


def test_wrong_usage_under_json_is_one_document_too(edgekit: Any) -> None:
    done = edgekit("convert", "--json")
    assert done.code == 2
    assert done.document["error"]["kind"] == "usage"


def test_a_request_of_wrong_names_or_shapes_shows_what_the_graph_takes(edgekit: Any, bundle: Path, work: Path) -> None:
    np.savez(work / "names.npz", picture=np.zeros((1, 1, 8, 8), np.float32))
    done = edgekit("run", "tiny.edge", "--input", "names.npz")
    assert done.code == 3
    done.says("image", "picture")
    np.savez(work / "shape.npz", image=np.zeros((1, 1, 9, 8), np.float32))
    done = edgekit("run", "tiny.edge", "--input", "shape.npz")
    assert done.code == 3
    done.says("image", "9", "8")


@pytest.mark.parametrize(
    ("option", "value", "known"), [("--graph", "onnx.int9", "onnx.int8"), ("--engine", "fpga", "onnxruntime")]
)
def test_an_unknown_graph_or_engine_lists_what_there_is(
    edgekit: Any, bundle: Path, work: Path, option: str, value: str, known: str
) -> None:
    done = edgekit(*arguments("run", work), option, value)
    assert done.code == 2
    done.says(value, known)


def test_without_an_engine_the_pip_line_is_named(
    edgekit: Any, bundle: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime import engines

    absent = {name: ("edgekit_no_such_package", *row[1:]) for name, row in engines.TABLE.items()}
    monkeypatch.setattr(engines, "TABLE", absent)
    monkeypatch.setattr(engines, "_loaded", {})
    done = edgekit(*arguments("run", work))
    assert done.code == 3
    done.says("no engine is installed that runs onnx", "pip install 'edgekit[onnxruntime]'")


def test_golden_answers_that_another_graph_gives_fail_the_verification(edgekit: Any, bundle: Path) -> None:
    golden = np.load(bundle / "golden" / "onnx.fp32.npz")["scores"]
    np.savez(bundle / "golden" / "onnx.fp32.npz", scores=golden + 1)
    reseal(bundle, "golden/onnx.fp32.npz")
    done = edgekit("verify", "tiny.edge", "--json", "--quiet")
    assert done.code == 4
    failed = [check["name"] for check in done.document["checks"] if not check["ok"]]
    assert done.document["ok"] is False
    assert failed == ["onnx.fp32 on onnxruntime"]


def reseal(bundle: Path, name: str) -> None:
    """Lists the file as it is now, as somebody would who means to deceive."""
    from edgekit_runtime.manifest import FileEntry
    from edgekit_runtime.paths import sha256

    manifest = load((bundle / "manifest.json").read_bytes())
    entry = FileEntry(bytes=(bundle / name).stat().st_size, sha256=sha256(bundle / name))
    changed = msgspec.structs.replace(manifest, files={**manifest.files, name: entry})
    (bundle / "manifest.json").write_bytes(dump(changed))


def test_every_change_of_content_changes_the_identity(edgekit: Any, bundle: Path) -> None:
    before = edgekit("inspect", "tiny.edge", "--json").document["bundle_id"]
    (bundle / "golden" / "onnx.fp32.npz").write_bytes((bundle / "golden" / "onnx.int8.npz").read_bytes())
    reseal(bundle, "golden/onnx.fp32.npz")
    assert edgekit("inspect", "tiny.edge", "--json").document["bundle_id"] != before
