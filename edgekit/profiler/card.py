"""Memory that a process holds on an NVIDIA card, by NVML."""

from __future__ import annotations

from typing import Any


def memory_bytes(pid: int, library: Any = None) -> int | None:
    """Bytes that a process holds on all cards together.

    Args:
        pid: The process.
        library: Something like the module `pynvml`; None: the module itself.

    Returns:
        None where there is no library or card, the process is on none, or the driver does not tell (in a container it
        may see other process ids).
    """
    if library is None:
        try:
            import pynvml
        except ImportError:
            return None
        library = pynvml
    try:
        library.nvmlInit()
        cards = [library.nvmlDeviceGetHandleByIndex(number) for number in range(library.nvmlDeviceGetCount())]
        seen = [entry for card in cards for entry in library.nvmlDeviceGetComputeRunningProcesses(card)]
    except library.NVMLError:
        return None
    held = [entry.usedGpuMemory for entry in seen if entry.pid == pid and entry.usedGpuMemory is not None]
    return sum(held) if held else None
