"""What a graph is made for: the part of a device profile that decides numeric forms. Pure.

instruction set             ONNX int8 form        because
x86 with VNNI               u8s8 (no variant)     one instruction multiplies u8 x s8 and adds up in 32 bits
x86 without VNNI            reduced_range         pairs of u8 x s8 are added in 16 bits: 7-bit weights cannot saturate
Arm                         s8s8                  its kernels multiply signed by signed
GPU (onnxruntime-gpu)       none                  the CUDA provider has no int8 kernels: fp16
engine that is not ours     none                  nothing here can be proven for it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgekit_runtime.errors import UsageError
from edgekit_runtime.machine import Machine
from edgekit_runtime.manifest import Format

_X86 = ("x86_64", "amd64", "i686")
_DOT = {"avx512_vnni", "avx_vnni", "amx_int8"}
_ENGINES: dict[Format, tuple[str, ...]] = {"onnx": ("onnxruntime",), "tflite": ("litert", "tflite-runtime")}


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device to decide for.

    Attributes:
        name: Of its profile.
        architecture: As `platform.machine()` says there.
        isa: Instruction-set flags in the words of `/proc/cpuinfo`.
        engines: Engines that run there.
    """

    name: str
    architecture: str
    isa: tuple[str, ...]
    engines: tuple[str, ...]

    def like(self, machine: Machine) -> bool:
        """Whether what is timed on a machine says anything about this target: the same kernels run."""
        same = (self.architecture in _X86) == machine.is_x86
        dot = bool({*_DOT, "asimddp", "i8mm"} & set(self.isa))
        return same and dot == machine.has_int8_dot and bool(set(self.engines) & {"onnxruntime", "litert"})


def no_int8(target: Target, kind: Format) -> str:
    """Why a target gets no int8 graph of a format; empty where it does."""
    if any(engine in _ENGINES[kind] for engine in target.engines):
        return ""
    if kind == "onnx" and "onnxruntime-gpu" in target.engines:
        return f"{target.name}: the CUDA provider of onnxruntime has no int8 kernels; fp16 serves it"
    return f"{target.name} runs {', '.join(target.engines) or 'no engine'}: none that edgekit proves {kind} graphs on"


def onnx_variant(target: Target) -> str:
    """The numeric form of int8 in ONNX that is right on a target: empty is u8s8."""
    if target.architecture not in _X86:
        return "s8s8"
    return "" if _DOT & set(target.isa) else "reduced_range"


def variants(targets: Sequence[Target], kind: Format) -> dict[str, tuple[str, ...]]:
    """Which int8 graphs of a format are made, each with the targets it is for.

    Without targets there is one graph for all: u8s8 in ONNX.
    """
    if not targets:
        return {"": ()}
    found: dict[str, list[str]] = {}
    for target in targets:
        if not no_int8(target, kind):
            found.setdefault(onnx_variant(target) if kind == "onnx" else "", []).append(target.name)
    return {variant: tuple(names) for variant, names in found.items()}


def halved_for(targets: Sequence[Target], kind: Format) -> tuple[str, ...]:
    """Targets that get an fp16 graph of a format: GPUs, where int8 has no kernels."""
    gpus = [target.name for target in targets if "onnxruntime-gpu" in target.engines]
    return tuple(gpus) if kind == "onnx" else ()


def check(targets: Sequence[object]) -> None:
    """Refuses what is no `Target`: names are looked up by `edgekit.convert` and the command line.

    Raises:
        UsageError: Something else was given.
    """
    wrong = [target for target in targets if not isinstance(target, Target)]
    if wrong:
        raise UsageError(
            f"target {wrong[0]!r} is no device profile here", remedy="call edgekit.convert, which knows their names"
        )
