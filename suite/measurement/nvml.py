"""NVIDIA's management library behind one small class; every reading may be absent, none is guessed.

The module ``pynvml`` comes from the package nvidia-ml-py. Process ids inside a container are not the host's, so the
process's own share is not always to be had; then the device's use minus its idle baseline stands in, and says so.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch

MIB = 1024 * 1024
# NVML's bits: hardware slowdown, software thermal, hardware thermal, hardware power brake.
_SLOWDOWNS = 0x08 | 0x20 | 0x40 | 0x80


class Usage(NamedTuple):
    """One reading in MiB: the whole device, this process (None when the driver does not tell), others present."""

    device: float
    process: float | None
    others: bool | None


class Nvml:
    """The NVML handle of torch's CUDA device, found by UUID since CUDA_VISIBLE_DEVICES renumbers devices."""

    def __init__(self, device: torch.device) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    @classmethod
    def open(cls, device: torch.device) -> Nvml | None:
        """The handle, or None: no GPU, no driver library, no permission."""
        if device.type != "cuda":
            return None
        try:
            return cls(device)
        except Exception:
            return None

    def usage(self) -> Usage | None:
        """Memory in use now."""
        try:
            total = float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) / MIB
        except self._nvml.NVMLError:
            return None
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return Usage(total, None, None)
        mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        own = float(mine[0]) / MIB if mine and mine[0] else None
        # In a container this process shows under a foreign id: one entry alone is then taken to be us.
        return Usage(total, own, len(processes) > 1 if processes else None)

    def energy_joules(self) -> float | None:
        """Energy drawn since the driver was loaded."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000.0
        except self._nvml.NVMLError:
            return None

    def throttled(self) -> bool | None:
        """Whether the clocks are held down now by heat or by the supply of power; a set power limit does not count."""
        try:
            reasons = int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
        except self._nvml.NVMLError:
            return None
        return bool(reasons & _SLOWDOWNS)

    def driver(self) -> str | None:
        """Driver version."""
        try:
            return str(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return None
