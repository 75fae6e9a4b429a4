"""The running loss as the host sees it: at once on a CPU, without waiting for the device on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


class LossProbe:
    """Reads a scalar that steps add to. On a GPU a reading is asked for, and used once it has arrived.

    Attributes:
        latest: mean an item at the last reading, nats.
    """

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self.latest = 0.0
        self._asked_items = 0
        self._event: torch.cuda.Event | None = None
        if total.is_cuda:
            self._host = torch.zeros((), dtype=total.dtype).pin_memory()
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def read(self, items: int) -> float:
        """The latest known mean, ``items`` having been added up when the steps launched so far are done."""
        if self._event is None:
            self.latest = self._total.item() / max(1, items)
        elif self._event.query():  # type: ignore[no-untyped-call]
            if self._asked_items:
                self.latest = self._host.item() / self._asked_items
            self._host.copy_(self._total, non_blocking=True)
            self._event.record()
            self._asked_items = items
        return self.latest
