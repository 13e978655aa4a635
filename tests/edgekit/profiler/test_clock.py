from __future__ import annotations

import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from edgekit.profiler import clock


def test_the_clock_of_this_machine_is_measured_and_repeats():
    if clock.machine_code(platform.machine()) is None:
        pytest.skip(f"there is no loop for {platform.machine()}")
    first, second = clock.measure_mhz(), clock.measure_mhz()
    if first is None or second is None:
        pytest.skip("this system lets no page be run that was written")
    assert 100 < first < 10_000
    # Frequency scaling moves it; a wrong count of cycles would be off by a factor.
    assert 0.5 < first / second < 2


def test_a_processor_without_a_loop_gives_no_figure():
    assert clock.machine_code("riscv64") is None


def test_the_loop_for_arm_adds_as_often_as_it_claims(tmp_path: Path):
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("qemu-user-static is not installed: the loop for arm64 cannot run here")
    # A program that calls the loop with 3 and ends with the sum as its status: mov x0, 3; bl loop; mov x8, 93; svc.
    code = struct.pack("<4I", 0xD2800060, 0x94000003, 0xD2800BA8, 0xD4000001) + (clock.machine_code("aarch64") or b"")
    base, offset = 0x400000, 64 + 56
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 2, 183, 1, base + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = offset + len(code)
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    path = tmp_path / "loop"
    path.write_bytes(header + program + code)
    path.chmod(0o755)
    assert subprocess.run([qemu, str(path)], timeout=20, check=False).returncode == 3 * 32
