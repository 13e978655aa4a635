from __future__ import annotations

import pytest

from edgekit_converters.options import Options
from edgekit_converters.target import Target, no_int8, onnx_variant, variants
from edgekit_runtime.errors import UsageError

PI5 = Target("pi5", "aarch64", ("asimd", "asimddp"), ("onnxruntime", "litert"))
VNNI = Target("x86-vnni", "x86_64", ("avx2", "avx512_vnni"), ("onnxruntime", "litert"))
OLD = Target("x86-no-vnni", "x86_64", ("avx2",), ("onnxruntime", "litert"))
GPU = Target("nvidia-t4", "x86_64", ("dp4a",), ("onnxruntime-gpu", "torch"))
MCU = Target("stm32", "thumbv7em", (), ("x-cube-ai",))


@pytest.mark.parametrize(("target", "variant"), [(PI5, "s8s8"), (VNNI, ""), (OLD, "reduced_range")])
def test_the_instruction_set_decides_the_numeric_form(target: Target, variant: str) -> None:
    assert onnx_variant(target) == variant


def test_targets_of_one_form_share_a_graph() -> None:
    assert variants([PI5, VNNI, OLD, Target("pi4", "aarch64", (), ("onnxruntime",))], "onnx") == {
        "s8s8": ("pi5", "pi4"),
        "": ("x86-vnni",),
        "reduced_range": ("x86-no-vnni",),
    }


def test_tflite_has_one_form_for_all_that_run_it() -> None:
    assert variants([PI5, OLD, GPU], "tflite") == {"": ("pi5", "x86-no-vnni")}


def test_without_targets_one_graph_is_for_all() -> None:
    assert variants([], "onnx") == {"": ()}


def test_a_gpu_gets_no_int8_and_the_reason() -> None:
    assert "no int8 kernels" in no_int8(GPU, "onnx")
    assert variants([GPU], "onnx") == {}


def test_an_engine_that_is_not_ours_is_said() -> None:
    assert "x-cube-ai" in no_int8(MCU, "tflite")


def test_a_bare_name_is_wrong_usage_here() -> None:
    with pytest.raises(UsageError, match="pi5"):
        Options(source="s", out="o.edge", targets=("pi5",)).check()  # type: ignore[arg-type]
