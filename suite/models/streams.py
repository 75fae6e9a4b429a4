"""CUDA streams beside the default one, lent for as long as their user lives and then lent again."""

from __future__ import annotations

import threading
import weakref

import torch


class Streams:
    """Whoever records CUDA graphs, which the default stream does not allow, or overlaps with others, borrows one.

    A new stream each time would not do: PyTorch keeps the workspaces of cuBLAS and cuBLASLt for every stream that ever
    called them (its notes on CUDA semantics), 64 MiB together on a Hopper GPU, and each run of a process would count
    those of all the runs before it as its own memory.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[torch.cuda.Stream]] = {}
        self._lending = threading.Lock()

    def lend(self, user: object, device: torch.device) -> torch.cuda.Stream:
        """A stream of the device for the user alone, until nothing refers to the user any more."""
        index = torch.cuda.current_device() if device.index is None else device.index
        with self._lending:
            free = self._free.setdefault(index, [])
            stream = free.pop() if free else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Without the lock: a collection may come upon the user while this very thread holds it.
        weakref.finalize(user, free.append, stream).atexit = False
        return stream


STREAMS = Streams()
