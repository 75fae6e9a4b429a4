"""Gradients by a PLIF's pieces from the logits and their gradients, counted in shared memory on a GPU.

One atomic addition a logit to global memory is what a PLIF costs most. Here every multiprocessor keeps the sums of a
window of pieces, around where the logits are, in its shared memory instead, chunk after chunk of a call; see knots.cu.
The sums are integers, so a run repeats bit for bit, whatever the order, the window and the number of multiprocessors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels.one_pass import Call
from suite.kernels.pieces import Pieces

_SOURCE = "knots.cu"
_BYTES = 8  # of shared memory a piece: two sums


class KnotSums:
    """Sums for one call, chunk after chunk.

    Args:
        call: the call.
        pieces: its pieces.
        window: pieces in shared memory, at most; fewer where they do not fit or there are fewer.
    """

    def __init__(self, call: Call, pieces: Pieces, window: int) -> None:
        device = call.targets.device
        self._call, self._pieces = call, pieces
        self._slopes = call.operands[0].detach().float().contiguous()
        # The window leaves out the end pieces and is a multiple of four.
        self._window = min(window, pieces.shared // _BYTES, pieces.knots - 2) // 4 * 4
        self._prepare, self._accumulate, self._collect = (
            pieces.kernel(_SOURCE, name, WINDOW=self._window) for name in ("prepare", "accumulate", "collect")
        )
        self._plan = torch.empty(4, dtype=torch.int32, device=device)
        self._sums = torch.zeros(2, pieces.knots, dtype=torch.int64, device=device)
        self._slabs = torch.empty(pieces.blocks, 2, self._window, dtype=torch.int32, device=device)
        self._scale: Tensor | float | None = None

    def add(self, z: Tensor, of_z: Tensor, scale: Tensor | float) -> None:
        """Add a chunk: logits [rows, width] without the bias, ``scale`` times their gradient, the same for every chunk.

        Where the gradient is zero, as it must be beyond the words, the logit may be anything.
        """
        first, self._scale, pieces = self._scale is None, scale, self._pieces
        pieces.locate(z)
        if first:
            self._decide(scale)
        self._accumulate.launch(
            pieces.blocks,
            pieces.threads,
            z,
            of_z,
            pieces.bias,
            self._slabs,
            self._sums,
            self._plan,
            z.shape[0],
            pieces.width,
            pieces.knots,
            int(first),
            *pieces.line,
            shared=_BYTES * self._window,
        )

    def finish(self) -> tuple[Tensor, Tensor]:
        """Gradients by the slopes [knots] and by the knots' values [knots]."""
        pieces = self._pieces
        out = torch.zeros(2, pieces.knots, device=self._sums.device)
        if self._scale is not None:
            threads = min(pieces.threads, 256)
            self._collect.launch(
                -(-2 * pieces.knots // threads),
                threads,
                self._slabs,
                self._sums,
                self._slopes,
                self._tensor(self._scale),
                self._plan,
                out,
                pieces.blocks,
                pieces.knots,
                int(isinstance(self._scale, Tensor)),
                self._number(self._scale),
                pieces.line[1],
            )
        return out[0], out[1]

    def _decide(self, scale: Tensor | float) -> None:
        call, weight, pieces = self._call, self._call.row_weight, self._pieces
        tokens = call.targets.shape[0]
        self._prepare.launch(
            1,
            pieces.threads,
            self._slopes,
            self._tensor(weight),
            self._tensor(scale),
            pieces.sample,
            self._plan,
            tokens,
            pieces.knots,
            int(isinstance(weight, Tensor)),
            int(isinstance(scale, Tensor)),
            float(tokens * call.experts * call.words),
            self._number(weight),
            self._number(scale),
        )

    def _tensor(self, value: Tensor | float | None) -> Tensor:
        """``value``; where it is none, a tensor for the kernel not to look at."""
        return value if isinstance(value, Tensor) else self._slopes

    @staticmethod
    def _number(value: Tensor | float) -> float:
        return 1.0 if isinstance(value, Tensor) else float(value)
