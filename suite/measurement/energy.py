"""Energy of a run from the GPU's own counter."""

from __future__ import annotations

import math
import time

from suite.measurement.nvml import Nvml

_SHORTEST_WINDOW_S = 10.0


class EnergyMeter:
    """Joules since :meth:`start`; empty for windows under 10 s, where the counter is too coarse."""

    def __init__(self, nvml: Nvml | None) -> None:
        self._nvml = nvml
        self._joules = math.nan
        self._since = 0.0

    def start(self) -> None:
        """Read the counter."""
        self._since = time.perf_counter()
        self._joules = self.joules()

    def joules(self) -> float:
        """What the counter shows now; not a number where there is none."""
        shown = self._nvml.energy_joules() if self._nvml else None
        return math.nan if shown is None else shown

    def read(self) -> dict[str, float]:
        """The energy fields of :class:`suite.records.record.Costs`, or nothing."""
        seconds = time.perf_counter() - self._since
        drawn = self.joules() - self._joules
        if drawn >= 0 and seconds >= _SHORTEST_WINDOW_S:  # never so where a reading was not a number
            return {"energy_joules": drawn, "energy_seconds": seconds}
        return {}
