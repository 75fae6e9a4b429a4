"""All meters of a run together, and how figures of several attempts at one run add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from suite.measurement.energy import EnergyMeter
from suite.measurement.memory import MemoryMeter
from suite.measurement.nvml import Nvml

_PEAKS = ("gpu_peak_mib", "allocator_peak_mib", "cpu_peak_mib")


class Meters:
    """Memory and energy of one attempt, on top of what earlier attempts of the same run measured."""

    def __init__(self, device: torch.device, earlier: Mapping[str, Any] | None = None) -> None:
        self.nvml = Nvml.open(device)
        self._memory = MemoryMeter(device, self.nvml)
        self._energy = EnergyMeter(self.nvml)
        self.joules = self._energy.joules
        self._earlier = dict(earlier or {})
        self._stages: dict[str, float] = dict(self._earlier.get("stage_peaks_mib", {}))

    def start(self) -> None:
        """Begin to measure."""
        self._memory.start()
        self._energy.start()

    def read(self) -> dict[str, Any]:
        """Cost fields so far, all attempts included."""
        now = merge(self._earlier, {**self._memory.read(), **self._energy.read()})
        return {**now, "stage_peaks_mib": dict(self._stages)} if self._stages else now

    def mark(self, stage: str) -> None:
        """Keep the peak of memory so far as that until the end of a stage.

        The GPU's, or the allocator's or the CPU's where that is not known.
        """
        self._memory.sample()
        now = self.read()
        peak = next((now[name] for name in _PEAKS if name in now), None)
        if peak is not None:
            self._stages[stage] = peak

    def stop(self) -> dict[str, Any]:
        """End measuring and return the cost fields."""
        self._memory.stop()
        return self.read()


def merge(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a run from those of its attempts.

    Peaks are the largest, energy adds up. Peaks of different kinds (a process's share, a device's use) do not compare:
    then the latest attempt's stands. A run was alone on its GPU only if every attempt was.
    """
    merged: dict[str, Any] = {**earlier, **now}
    for prefix in ("gpu", "cpu"):
        peak, source = f"{prefix}_peak_mib", f"{prefix}_peak_source"
        if peak in earlier and peak in now and earlier.get(source) == now.get(source):
            merged[peak] = max(earlier[peak], now[peak])
    for peak in ("allocator_peak_mib", "allocator_reserved_mib"):
        if peak in earlier and peak in now:
            merged[peak] = max(earlier[peak], now[peak])
    for total in ("energy_joules", "energy_seconds"):
        if total in earlier and total in now:
            merged[total] = earlier[total] + now[total]
    if earlier.get("throttled"):
        merged["throttled"] = True
    if "exclusive" in earlier and "exclusive" in now:
        alone = (earlier["exclusive"], now["exclusive"])
        merged["exclusive"] = False if False in alone else None if None in alone else True
    return merged
