"""A GPU that is not there: NVIDIA's library and the few functions of torch.cuda that meters read."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

MIB = 1024 * 1024
CUDA = torch.device("cuda", 0)


class NVMLError(Exception):
    """As in pynvml."""


class FakeGpu(ModuleType):
    """Stands for the module pynvml; a reading of None makes its function fail. Memory in MiB, energy in joules."""

    NVMLError = NVMLError

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__("pynvml")
        self.used: float | None = 1000.0
        # (process id, MiB or None where the driver does not tell); None: the list is refused.
        self.processes: list[tuple[int, float | None]] | None = []
        self.joules: float | None = 50.0
        self.throttling: int | None = None  # NVML's bits; None: refused
        self.version: str | None = "580.1"
        self.asked_for: str | None = None
        self.reserved = 0.0
        self.peak_allocated = 0.0
        self.peak_reserved = 0.0
        patch.setitem(sys.modules, "pynvml", self)
        patch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1234-ab"))
        for name in ("init", "synchronize", "reset_peak_memory_stats"):
            patch.setattr(torch.cuda, name, lambda *_: None)
        patch.setattr(torch.cuda, "memory_reserved", lambda _: self.reserved * MIB)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _: self.peak_allocated * MIB)
        patch.setattr(torch.cuda, "max_memory_reserved", lambda _: self.peak_reserved * MIB)

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked_for = uuid
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(used=_given(self.used) * MIB)

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[SimpleNamespace]:
        if self.processes is None:
            raise NVMLError
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else int(mib * MIB))
            for pid, mib in self.processes
        ]

    def nvmlDeviceGetTotalEnergyConsumption(self, _: str) -> float:
        return _given(self.joules) * 1000.0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: str) -> int:
        if self.throttling is None:
            raise NVMLError
        return self.throttling

    def nvmlSystemGetDriverVersion(self) -> str:
        if self.version is None:
            raise NVMLError
        return self.version

    def holds(self, mib: float, *others: float) -> None:
        """This process's share, and those of other processes."""
        self.processes = [(os.getpid(), mib), *((os.getpid() + 1 + i, other) for i, other in enumerate(others))]


def _given(value: float | None) -> float:
    if value is None:
        raise NVMLError
    return value


class FakeTime:
    """Stands for the module time; it moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now
