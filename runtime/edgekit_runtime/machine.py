"""What this machine is: processor, instruction set, cores, memory. Parsing is pure; reading is apart."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import re
from pathlib import Path

# Arm's processors in edge boards, by implementer and part of /proc/cpuinfo (Arm's own lists; arm64 kernel cputype.h).
_ARM_PARTS = {
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x802): "Kryo 385 Gold",
    (0x61, 0x022): "Apple M1",
}
_IMPLEMENTERS = {0x41: "Arm", 0x4E: "NVIDIA", 0x51: "Qualcomm", 0x61: "Apple"}
_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "CentaurHauls": "Zhaoxin", "HygonGenuine": "Hygon"}

# The flags that decide which kernels run, by the word of /proc/cpuinfo.
_X86_FLAGS = frozenset(
    ("sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8")
)
_ARM_FLAGS = frozenset(("neon", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme"))
_X86_ARCHITECTURES = ("x86_64", "amd64", "i686", "i386")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine as far as the choice of a graph depends on it.

    Attributes:
        cpu: Name of the processor, for example `Cortex-A72` or `AMD EPYC 9554`.
        vendor: Who made it; empty where unknown.
        architecture: `x86_64`, `aarch64`, `armv7l`, ...
        isa: Instruction-set flags that decide which kernels run, sorted.
        cores: Physical cores this process may use.
        memory_bytes: Memory of the machine; 0 where unknown.
    """

    cpu: str
    vendor: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int

    @property
    def id(self) -> str:
        """`local-` and eight digits, equal on equal machines: under this name measurements find their machine again."""
        gib = round(self.memory_bytes / (1 << 30))
        text = "|".join((self.cpu, self.architecture, ",".join(self.isa), str(self.cores), str(gib)))
        return "local-" + hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def is_x86(self) -> bool:
        """An Intel or AMD instruction set."""
        return self.architecture in _X86_ARCHITECTURES

    @property
    def has_int8_dot(self) -> bool:
        """Instructions that multiply 8-bit integers and add them up in 32 bits."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}.intersection(self.isa))


def parse_cpuinfo(text: str, architecture: str) -> tuple[str, str, tuple[str, ...], int]:
    """Reads `/proc/cpuinfo`.

    Args:
        text: The file's text. On a big.LITTLE board the last kind of core listed is the fastest and gives the name;
            only flags that every core has count.
        architecture: As `platform.machine()` says.

    Returns:
        cpu, vendor, isa (sorted), number of physical cores listed.
    """
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text.strip())]
    processors = [block for block in blocks if "processor" in block]
    if not processors:
        return platform.processor() or architecture, "", (), 0
    last = processors[-1]
    if architecture.lower() in _X86_ARCHITECTURES or "vendor_id" in last:
        found = [_X86_FLAGS.intersection(block.get("flags", "").split()) for block in processors]
        vendor = _VENDORS.get(last.get("vendor_id", ""), last.get("vendor_id", ""))
        cores = {(block.get("physical id", "0"), block.get("core id", block["processor"])) for block in processors}
        return last.get("model name", architecture).strip(), vendor, _common(found), len(cores)
    found = [_ARM_FLAGS.intersection(block.get("Features", "").split()) for block in processors]
    implementer, part = _hex(last.get("CPU implementer")), _hex(last.get("CPU part"))
    name = _ARM_PARTS.get((implementer, part), f"Arm part 0x{implementer:02x}/0x{part:03x}")
    return name, _IMPLEMENTERS.get(implementer, ""), _common(found), len(processors)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _hex(text: str | None) -> int:
    try:
        return int(text or "0", 16)
    except ValueError:
        return 0


def _common(found: list[frozenset[str]]) -> tuple[str, ...]:
    return tuple(sorted(frozenset.intersection(*found)))


@functools.cache
def this_machine() -> Machine:
    """This machine, read once a process."""
    import psutil

    architecture = platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:  # not Linux: the name must do
        text = ""
    cpu, vendor, isa, listed = parse_cpuinfo(text, architecture)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(listed or psutil.cpu_count(logical=False) or allowed, allowed)
    return Machine(cpu, vendor, architecture, isa, max(cores, 1), int(psutil.virtual_memory().total))
