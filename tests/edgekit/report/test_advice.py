from __future__ import annotations

import math

import msgspec
import pytest

from edgekit.report.advice import int8_advice, predicted_speedup
from edgekit_runtime.manifest import Quality
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, Verdict


def measured(precision: str, p50: float | None, *, graph: str = "", half: float = 0.02, **more) -> Measurement:
    interval = None if p50 is None else (p50 * (1 - half), p50 * (1 + half))
    values = {
        "device": "local-1",
        "engine": "onnxruntime",
        "engine_version": "1.0",
        "threads": 1,
        "precision": precision,
        "graph": graph or f"onnx.{precision}",
        "bundle_id": "b",
        "inputs": {"x": (1, 3, 8, 8)},
        "latency_ms": Latency(p50=p50, n=100, interval_95=interval),
        "memory": Memory(file_bytes=250 if precision == "int8" else 1000),
        "energy": Energy(kind="unavailable", reason="no sensor"),
        "environment": Environment(cpu="test"),
        "verdict": Verdict(kind="sound"),
    }
    return Measurement(**{**values, **more})


def quality(gate: str) -> Quality:
    return Quality(
        graph="onnx.int8",
        metric="top1",
        higher_is_better=True,
        reference=0.9,
        value=0.89,
        drop=0.01,
        interval_95=(0.0, 0.02),
        n=500,
        labels=True,
        gate=gate,
        reason="the drop is too large",
    )


@pytest.mark.parametrize(
    ("int8", "fp32", "answer", "because"),
    [
        (measured("int8", 1.0), measured("fp32", 2.0), "yes", "as fast as fp32 with 0.25"),
        (measured("int8", 2.0), measured("fp32", 1.0), "no", "takes 2.0"),
        (measured("int8", 1.0), measured("fp32", 1.01), "not shown", "intervals overlap"),
        (measured("int8", None), measured("fp32", 1.0), "not shown", "no median"),
        (
            measured("int8", 1.0, verdict=Verdict(kind="invalid")),
            measured("fp32", 2.0),
            "not shown",
            "of int8 is invalid",
        ),
        (measured("int8", 1.0, verdict=Verdict(kind="noisy")), measured("fp32", 2.0), "yes", "noisy figures"),
    ],
)
def test_int8_pays_only_where_it_is_shown_to(int8, fp32, answer: str, because: str):
    (advice,) = int8_advice([fp32, int8])
    assert advice.answer == answer
    assert because in advice.because


def test_a_failed_gate_outweighs_any_speed():
    (advice,) = int8_advice([measured("int8", 1.0), measured("fp32", 9.0)], [quality("failed")])
    assert advice.answer == "no"
    assert "the drop is too large" in advice.because


def test_a_passed_gate_is_part_of_the_reason():
    (advice,) = int8_advice([measured("int8", 1.0), measured("fp32", 9.0)], [quality("passed")])
    assert advice.answer == "yes"
    assert "its top1 passes the gate (drop +0.0100)" in advice.because


def test_only_twins_are_compared():
    int8 = measured("int8", 1.0)
    for other in (
        measured("fp32", 2.0, engine="litert"),
        measured("fp32", 2.0, threads=4),
        measured("fp32", 2.0, device="pi4"),
        measured("fp32", 2.0, inputs={"x": (8, 3, 8, 8)}),
        measured("fp32", 2.0, graph="tflite.fp32"),
        measured("fp32", 2.0, bundle_id="other"),
    ):
        assert int8_advice([int8, other]) == []


def test_bare_files_are_twins_when_their_names_differ_by_the_precision_alone():
    int8 = measured("int8", 1.0, graph="vww_96_int8.tflite", bundle_id="")
    assert int8_advice([int8, measured("fp32", 2.0, graph="vww_96_float.tflite", bundle_id="")])
    assert not int8_advice([int8, measured("fp32", 2.0, graph="kws_float.tflite", bundle_id="")])


def test_an_answer_from_predictions_says_so():
    (found,) = int8_advice([measured("int8", 1.0, predicted=True), measured("fp32", 2.0, predicted=True)])
    assert found.answer == "yes"
    assert "predicted, not measured" in found.because


def predicted(precision: str, ms: float, spread: float):
    low, high = ms * math.exp(-1.96 * spread), ms * math.exp(1.96 * spread)
    found = measured(precision, ms, predicted=True)
    latency = msgspec.structs.replace(found.latency_ms, interval_95=(low, high))
    return msgspec.structs.replace(found, latency_ms=latency)


@pytest.mark.parametrize(("int8_ms", "answer"), [(0.5, "yes"), (0.9, "not shown"), (1.1, "not shown"), (2.0, "no")])
def test_two_predictions_are_compared_by_their_ratio_as_they_are_wrong_together(int8_ms: float, answer: str):
    # Alone each may be wrong by a factor of 1.7, so that the intervals overlap in every case.
    int8, fp32 = predicted("int8", int8_ms, 0.27), predicted("fp32", 1.0, 0.27)
    (found,) = int8_advice([int8, fp32])
    assert found.answer == answer
    low, high = predicted_speedup(int8.latency_ms, fp32.latency_ms)
    assert low < 1 / int8_ms < high
    assert high / low < (fp32.latency_ms.interval_95[1] / fp32.latency_ms.interval_95[0])
