"""Wall time by phase, on a monotonic clock, with the device idle at both ends of every reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Phase = Literal["setup", "train", "evaluate", "log"]


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What waits for the queued work of the current stream, which is the run's own: nothing on a CPU."""
    if device.type == "cuda":
        return lambda: torch.cuda.current_stream(device).synchronize()
    return lambda: None


class PhaseClock:
    """Seconds spent in each phase. Phases do not nest: one clock runs at a time.

    ``seconds`` is plain data, so a checkpoint carries it over a restart.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})
        self._synchronize = synchronizer(device)
        self._running: Phase | None = None
        self._since = 0.0

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Add the time of the block to ``phase``; also when the block raises."""
        if self._running is not None:
            raise RuntimeError(f"clock {phase!r} started inside {self._running!r}")
        self._synchronize()
        self._running, self._since = phase, time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            self.seconds[phase] = self.read(phase)
            self._running = None

    def read(self, phase: Phase) -> float:
        """Seconds in ``phase`` so far, the running block included (without waiting for the device)."""
        running = time.perf_counter() - self._since if self._running == phase else 0.0
        return self.seconds.get(phase, 0.0) + running

    def snapshot(self) -> dict[str, float]:
        """Seconds by phase so far, the running block included."""
        seconds = dict(self.seconds)
        if self._running is not None:
            seconds[self._running] = self.read(self._running)
        return seconds
