"""Peak memory of a run and what disturbed it: NVML sampled in the background, the allocator's peak, resident memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psutil
import torch

from suite.measurement.nvml import MIB, Nvml

_PERIOD_S = 0.05


def _reset_resident_peak() -> bool:
    """Ask Linux to restart the high-water mark of resident memory; False where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_peak_mib() -> float | None:
    """High-water mark of this process's resident memory, MiB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    except OSError:
        pass
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    return float(peak) / MIB if peak is not None else None


class MemoryMeter:
    """Peaks between :meth:`start` and :meth:`stop`.

    NVML has no peak of its own, so a thread samples it every 50 ms; the allocator's peak is exact but knows only
    torch's tensors. Which is which is named in the result.
    """

    def __init__(self, device: torch.device, nvml: Nvml | None) -> None:
        self._device = device
        self._nvml = nvml
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._baseline = 0.0
        self._device_peak = 0.0
        self._process_peak: float | None = None
        self._others: bool | None = None
        self._throttled: bool | None = None
        self._resident_is_ours = False

    def start(self) -> None:
        """Take the idle baseline and begin to sample."""
        self._resident_is_ours = _reset_resident_peak()
        if self._device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        if self._nvml is not None:
            usage = self._nvml.usage()
            # What this process already holds (its context, cached blocks) is ours and not idle baseline.
            held = torch.cuda.memory_reserved(self._device) / MIB
            self._baseline = max(0.0, usage.device - held) if usage else 0.0
            self.sample()
            self._thread = threading.Thread(target=self._watch, name="nvml-sampler", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            self.sample()

    def sample(self) -> None:
        """Take one more reading now."""
        if self._nvml is None:
            return
        throttled = self._nvml.throttled()
        if throttled is not None:
            self._throttled = throttled or bool(self._throttled)
        usage = self._nvml.usage()
        if usage is None:
            return
        self._device_peak = max(self._device_peak, usage.device)
        if usage.process is not None:
            self._process_peak = max(self._process_peak or 0.0, usage.process)
        if usage.others is not None:
            self._others = usage.others or bool(self._others)

    def read(self) -> dict[str, Any]:
        """Peaks so far: the memory fields of :class:`suite.records.record.Costs`."""
        peaks: dict[str, Any] = {"exclusive": None if self._others is None else not self._others}
        if self._throttled is not None:
            peaks["throttled"] = self._throttled
        if self._process_peak is not None:
            peaks |= {"gpu_peak_mib": self._process_peak, "gpu_peak_source": "process"}
        elif self._device_peak > 0:
            peaks |= {"gpu_peak_mib": self._device_peak - self._baseline, "gpu_peak_source": "device-minus-baseline"}
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            peaks["allocator_peak_mib"] = torch.cuda.max_memory_allocated(self._device) / MIB
            peaks["allocator_reserved_mib"] = torch.cuda.max_memory_reserved(self._device) / MIB
        resident = _resident_peak_mib()
        if resident is not None:
            peaks["cpu_peak_mib"] = resident
            peaks["cpu_peak_source"] = "run" if self._resident_is_ours else "process-lifetime"
        return peaks

    def stop(self) -> None:
        """End the background sampling; :meth:`read` still answers."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
