from __future__ import annotations

from types import SimpleNamespace as Stub

from edgekit.profiler.card import memory_bytes


class Library:
    """Two cards as NVML shows them."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, card: int) -> list[Stub]:
        other = Stub(pid=8, usedGpuMemory=None)
        return [Stub(pid=7, usedGpuMemory=100 + card), other]


def test_the_memory_of_a_process_is_added_over_cards_and_never_zero_for_unknown():
    assert memory_bytes(7, Library()) == 201
    assert memory_bytes(8, Library()) is None
    assert memory_bytes(9, Library()) is None
    assert memory_bytes(7, Library(broken=True)) is None
