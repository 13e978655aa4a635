from __future__ import annotations

import dataclasses

import pytest

from edgekit_runtime.machine import Machine, parse_cpuinfo, this_machine

A72 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
A76 = A72.replace("0xd08", "0xd0b").replace(
    "crc32 cpuid", "aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
)
ZEN4 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD EPYC 9554 64-Core Processor
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse4_1 fma f16c avx avx2 avx512f avx512bw avx512_vnni avx512_bf16
"""
BOARD = "\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"


def listed(block: str, count: int) -> str:
    return "\n".join(block.replace("processor\t: 0", f"processor\t: {number}") for number in range(count))


@pytest.mark.parametrize(
    ("text", "architecture", "cpu", "vendor", "flags", "cores"),
    [
        (listed(A72, 4) + BOARD, "aarch64", "Cortex-A72", "Arm", {"asimd"}, 4),
        (listed(A76, 4), "aarch64", "Cortex-A76", "Arm", {"asimd", "asimddp", "asimdhp", "fphp"}, 4),
        (ZEN4, "x86_64", "AMD EPYC 9554 64-Core Processor", "AMD", {"avx2", "avx512_vnni"}, 1),
    ],
)
def test_cpuinfo_of_known_processors(
    text: str, architecture: str, cpu: str, vendor: str, flags: set[str], cores: int
) -> None:
    name, maker, isa, count = parse_cpuinfo(text, architecture)
    assert (name, maker, count) == (cpu, vendor, cores)
    assert flags <= set(isa)
    assert ("asimddp" in isa) == (cpu == "Cortex-A76")


def test_hyperthreads_are_one_core() -> None:
    threads = listed(ZEN4, 2)
    assert parse_cpuinfo(threads, "x86_64")[3] == 1
    assert parse_cpuinfo(threads + "\n" + ZEN4.replace("core id\t\t: 0", "core id\t\t: 1"), "x86_64")[3] == 2


def test_of_two_kinds_of_core_the_fast_one_names_the_machine_and_both_must_have_a_flag() -> None:
    name, _, isa, cores = parse_cpuinfo(A72 + "\n" + A76.replace(": 0\n", ": 1\n", 1), "aarch64")
    assert (name, cores) == ("Cortex-A76", 2)
    assert "asimddp" not in isa


def test_an_unknown_part_is_called_by_its_numbers() -> None:
    assert parse_cpuinfo(A72.replace("0xd08", "0xfff"), "aarch64")[0] == "Arm part 0x41/0xfff"
    assert parse_cpuinfo("", "riscv64")[3] == 0


def test_equal_machines_have_equal_ids() -> None:
    pi = Machine("Cortex-A72", "Arm", "aarch64", ("asimd",), 4, 4 << 30)
    assert pi.id == dataclasses.replace(pi, memory_bytes=(4 << 30) - (80 << 20)).id  # firmware keeps a part
    assert pi.id != dataclasses.replace(pi, cpu="Cortex-A76").id
    assert pi.id.startswith("local-")
    assert not pi.has_int8_dot


def test_this_machine_is_read() -> None:
    here = this_machine()
    assert here.cores >= 1
    assert here.memory_bytes > 1 << 28
    assert here.cpu
