"""Gradients by a PLIF's pieces from the logits and their gradients, counted in shared memory on a GPU.

One atomic addition a logit to global memory is what a PLIF costs most. Here every multiprocessor keeps the sums of a
window of pieces, around where the logits are, in its shared memory instead, chunk after chunk of a call; see knots.cu.
The sums are integers, so a run repeats bit for bit, whatever the order, the window and the number of multiprocessors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels import cuda_source
from suite.kernels.one_pass import Call
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import Pointwise

_SOURCE = "knots.cu"
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_BYTES = 8  # of shared memory a piece: two sums
# The window leaves out the end pieces and is a multiple of four; a piece's number must be exact in float32, and so that
# a logit's place on its piece is too, to a few bits.
_KNOTS = range(6, 2**21)
THREADS = 1024


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory that a block may have there."""
    return torch.cuda.get_device_properties(device).multi_processor_count, cuda_source.largest_shared(device)


def applies(pointwise: Pointwise, device: torch.device) -> bool:
    """Whether the sums of this function's pieces can be taken here, on this device."""
    return (
        isinstance(pointwise, Plif)
        and pointwise.raw_slopes.numel() in _KNOTS
        and pointwise.raw_slopes.requires_grad
        and cuda_source.available(device)
    )


class KnotSums:
    """Sums for one call, chunk after chunk.

    Args:
        call: the call, its pointwise function one that :func:`applies`.
        logits: their dtype.
        gradient: that of their gradient.
        width: length of a row of both in memory, a multiple of 8.
        window: pieces in shared memory, at most; fewer where they do not fit or there are fewer.
    """

    def __init__(self, call: Call, logits: torch.dtype, gradient: torch.dtype, width: int, window: int) -> None:
        assert isinstance(call.pointwise, Plif)
        device = call.targets.device
        self._call, self._width = call, width
        self._slopes = call.operands[0].detach().float().contiguous()
        self._knots = self._slopes.numel()
        self._line = call.pointwise.bound, self._knots / (2.0 * call.pointwise.bound)
        self._blocks, shared = limits(device)
        self._window = min(window, shared // _BYTES, self._knots - 2) // 4 * 4
        defines = {
            "LOGITS": _TYPES[logits],
            "GRADIENT": _TYPES[gradient],
            "BIAS": int(call.bias is not None),
            "WINDOW": self._window,
        }
        self._prepare, self._accumulate, self._collect = (
            cuda_source.kernel(_SOURCE, name, device, **defines) for name in ("prepare", "accumulate", "collect")
        )
        self._plan = torch.empty(4, dtype=torch.int32, device=device)
        self._bias = torch.empty(width if call.bias is not None else 1, device=device)
        self._sums = torch.zeros(2, self._knots, dtype=torch.int64, device=device)
        self._slabs = torch.empty(self._blocks, 2, self._window, dtype=torch.int32, device=device)
        self._scale: Tensor | float | None = None

    def add(self, z: Tensor, of_z: Tensor, scale: Tensor | float) -> None:
        """Add a chunk: logits [rows, width] without the bias, ``scale`` times their gradient, the same for every chunk.

        Where the gradient is zero, as it must be beyond the words, the logit may be anything.
        """
        first, self._scale = self._scale is None, scale
        rows = z.shape[0]
        if first:
            self._plan_for(z, scale)
        self._accumulate.launch(
            self._blocks,
            THREADS,
            z,
            of_z,
            self._bias,
            self._slabs,
            self._sums,
            self._plan,
            rows,
            self._width,
            self._knots,
            int(first),
            *self._line,
            shared=_BYTES * self._window,
        )

    def finish(self) -> tuple[Tensor, Tensor]:
        """Gradients by the slopes [knots] and by the knots' values [knots]."""
        out = torch.zeros(2, self._knots, device=self._sums.device)
        if self._scale is not None:
            threads = min(THREADS, 256)
            self._collect.launch(
                -(-2 * self._knots // threads),
                threads,
                self._slabs,
                self._sums,
                self._slopes,
                self._tensor(self._scale),
                self._plan,
                out,
                self._blocks,
                self._knots,
                int(isinstance(self._scale, Tensor)),
                self._number(self._scale),
                self._line[1],
            )
        return out[0], out[1]

    def _plan_for(self, z: Tensor, scale: Tensor | float) -> None:
        call, weight = self._call, self._call.row_weight
        tokens = call.targets.shape[0]
        self._prepare.launch(
            1,
            THREADS,
            z,
            self._tensor(call.bias),
            self._slopes,
            self._tensor(weight),
            self._tensor(scale),
            self._bias,
            self._plan,
            z.shape[0],
            self._width,
            call.words,
            tokens,
            self._knots,
            int(isinstance(weight, Tensor)),
            int(isinstance(scale, Tensor)),
            float(tokens * call.experts * call.words),
            self._number(weight),
            self._number(scale),
            *self._line,
        )

    def _tensor(self, value: Tensor | float | None) -> Tensor:
        """``value``; where it is none, a tensor for the kernel not to look at."""
        return value if isinstance(value, Tensor) else self._slopes

    @staticmethod
    def _number(value: Tensor | float) -> float:
        return 1.0 if isinstance(value, Tensor) else float(value)
