"""The clock a core really runs at, from a loop whose length in cycles is known.

    loop:  add a, b   (32 times, each waits for the one before: 32 cycles on every x86-64 and arm64 core)
           count - 1, jump to loop

Machines claim a clock (`cpuinfo`, the governor) that turbo, throttling and hypervisors ignore. An addition of two
registers takes one cycle on all of them, so additions over time is the clock. The shortest of several loops of about
a tenth of a millisecond counts: a preempted one is longer. The loop is machine code of 150 bytes in a page of its own;
where the system forbids that, or on another processor, the clock is not measured.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
import time
from collections.abc import Callable

_ADDS = 32
_ROUNDS = 8_000  # 256,000 cycles: 0.1 ms at 2.5 GHz
_TRIES = 12


def measure_mhz(tries: int = _TRIES) -> float | None:
    """The clock of the core this thread is on, in MHz (takes about 1.5 ms); None where it cannot be measured."""
    loop = _loop()
    if loop is None:
        return None
    best = None
    for _ in range(tries):
        start = time.perf_counter_ns()
        loop(_ROUNDS)
        elapsed = time.perf_counter_ns() - start
        best = elapsed if best is None else min(best, elapsed)
    return _ROUNDS * _ADDS / best * 1e3 if best else None


def machine_code(machine: str) -> bytes | None:
    """The loop for a processor as `platform.machine` names it; it takes the count in the first argument register."""
    if machine.lower() in ("x86_64", "amd64"):
        body = b"\x48\x01\xc8" * _ADDS + b"\x48\xff\xcf"  # add rax, rcx ...; dec rdi
        back = -(len(body) + 6)
        # xor eax, eax; mov ecx, 1; body; jnz loop; ret
        return b"\x31\xc0\xb9\x01\x00\x00\x00" + body + b"\x0f\x85" + struct.pack("<i", back) + b"\xc3"
    if machine.lower() in ("aarch64", "arm64"):
        jump = 0x54000001 | ((-(_ADDS + 1) & 0x7FFFF) << 5)  # b.ne loop
        words = [0xD2800002, 0xD2800021, *[0x8B010042] * _ADDS, 0xF1000400, jump, 0xAA0203E0, 0xD65F03C0]
        return struct.pack(f"<{len(words)}I", *words)
    return None


@functools.cache
def _loop() -> Callable[[int], int] | None:
    code = machine_code(platform.machine())
    if code is None or sys.platform != "linux":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        if not platform.machine().startswith(("x86", "AMD", "amd")):
            ctypes.CDLL("libgcc_s.so.1").__clear_cache(ctypes.c_void_p(address), ctypes.c_void_p(address + len(code)))
    except (OSError, AttributeError):  # pages that run what was written are forbidden; no libgcc
        return None
    call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(address)
    _pages.append(page)
    return call


_pages: list[mmap.mmap] = []  # the function lives as long as its page
