from __future__ import annotations

from importlib import metadata

import pytest

from edgekit_runtime import engines
from edgekit_runtime.engines import refuse_two_wheels
from edgekit_runtime.errors import EngineMissing, UsageError
from edgekit_runtime.testing import FakeEngine, using


def fake(name: str) -> FakeEngine:
    return FakeEngine(name, {}, inputs=(), outputs=())


def test_an_engine_is_loaded_by_name_and_once() -> None:
    assert engines.get("onnxruntime") is engines.get("onnxruntime")
    assert engines.get("onnxruntime").version == metadata.version("onnxruntime")
    assert engines.installed_version("onnxruntime") == metadata.version("onnxruntime")


def test_an_unknown_engine_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match="litert"):
        engines.get("onnxrun")


def test_a_missing_engine_names_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ("a_package_nobody_has", "litert", "LiteRT", ("tflite",), "pip install 'edgekit[litert]'")
    monkeypatch.setitem(engines.TABLE, "absent", row)
    with pytest.raises(EngineMissing) as caught:
        engines.get("absent")
    assert caught.value.remedy == "pip install 'edgekit[litert]'"
    assert "absent" not in engines.available()


def test_two_onnxruntime_wheels_are_refused_with_the_way_out() -> None:
    with pytest.raises(EngineMissing, match="onnxruntime and onnxruntime-gpu") as caught:
        refuse_two_wheels(lambda wheel: wheel in ("onnxruntime", "onnxruntime-gpu"))
    assert "pip uninstall" in caught.value.remedy
    refuse_two_wheels(lambda wheel: wheel == "onnxruntime-gpu")


def test_a_name_can_be_taken_once() -> None:
    with using(fake("mine")):
        assert "mine" in engines.available()
        with pytest.raises(UsageError, match="exists already"):
            engines.register(fake("mine"))
    with pytest.raises(UsageError, match="exists already"):
        engines.register(fake("onnxruntime"))
    assert "mine" not in engines.names()


def test_third_parties_bring_engines_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [metadata.EntryPoint("theirs", "edgekit_runtime.testing:FakeEngine", engines.GROUP)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == engines.GROUP else [])
    monkeypatch.setattr(engines, "_entry_points", engines._entry_points.__wrapped__)  # as in a new process
    assert "theirs" in engines.names()
    points.append(metadata.EntryPoint("theirs", "other:Engine", engines.GROUP))
    with pytest.raises(UsageError, match="two packages"):
        engines.names()


def test_engines_are_found_by_format() -> None:
    assert engines.for_format("onnx")[0] == "onnxruntime"
    assert set(engines.for_format("tflite")) <= {"litert", "tflite-runtime"}
    assert engines.pip_lines({"onnx"}) == "pip install 'edgekit[onnxruntime]'"
