"""Profiles of devices that are not at hand."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from edgekit import devices
from edgekit.profiler import dispatch
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access, parse
from edgekit_runtime import open_bundle
from edgekit_runtime.errors import Refused
from edgekit_runtime.testing import make_bundle


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return make_bundle(tmp_path / "tiny.edge")


def test_a_graph_larger_than_the_device_is_refused_before_it_is_opened(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(job: object) -> None:
        raise AssertionError("the graph was opened")

    pi4 = devices.load("pi4")
    bytes_ = open_bundle(tiny).graph("onnx.fp32").bytes
    memory = pi4.hardware.memory_bytes
    assert memory is not None
    smaller = msgspec.structs.replace(memory, value=bytes_ - 1)
    there = msgspec.structs.replace(pi4, hardware=msgspec.structs.replace(pi4.hardware, memory_bytes=smaller))
    monkeypatch.setattr(devices, "load", lambda name: there)
    monkeypatch.setattr(devices, "of_job", opened, raising=False)
    with pytest.raises(Refused, match="all memory of pi4"):
        dispatch.predicted("pi4", tiny, Request())


def test_a_graph_that_fits_is_predicted(tiny: Path) -> None:
    (found,) = dispatch.predicted("pi4", tiny, Request())
    assert found.predicted and found.device == "pi4"


def test_a_bundle_that_cannot_keep_figures_is_told_and_they_are_given(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    told: list[tuple[int, tuple[str, ...]]] = []
    found = dispatch.take(
        parse("pi4"), tiny, Request(), Access(), announce=lambda steps, remarks: told.append((steps, remarks))
    )
    assert [document.graph for document in found] == ["onnx.fp32"]
    assert told[-1] == (0, (f"keeping the figures in {tiny / 'measurements'}: No space left on device",))
    assert list((tiny / "measurements").iterdir()) == []
