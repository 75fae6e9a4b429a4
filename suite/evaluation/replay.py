"""A step that is taken thousands of times: called as it is on a CPU, recorded once and replayed on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from suite.models.streams import STREAMS

_WARM_UP = 3


class Replayed:
    """Calls ``step`` on a CPU; on a GPU, after three true calls, records it as a CUDA graph and replays that.

    A small step costs a GPU more to launch than to compute; a graph is one launch. ``step`` takes and returns nothing:
    what changes from call to call (position, state, sums, weights) lives in fixed tensors that it updates in place,
    and it never waits for the device. Recording runs nothing, so every call, also the first, is one true step. Random
    numbers go on from replay to replay, since a graph draws from torch's own generator.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step = step
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # A run is on a stream of its own already.
            current = torch.cuda.current_stream(device)
            is_default = current == torch.cuda.default_stream(device)
            self._stream = STREAMS.lend(self, device) if is_default else current
        self._calls = 0

    def __call__(self) -> None:
        """Take one step."""
        if self._stream is None:
            self._step()
        elif self._graph is not None:
            self._graph.replay()
        elif self._calls < _WARM_UP:
            # On the recording's own stream, so that libraries allocate their workspaces before it.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._step()
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            self._calls += 1
        else:
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may allocate and launch meanwhile; only this thread's mistakes are errors.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._step()
            self._graph.replay()
