"""The row kernels of a PLIF whose table lies in shared memory, in place of Triton's two: see plif.cu.

Both give what :func:`suite.kernels.triton_rows.statistics` and :func:`suite.kernels.triton_rows.gradient` give.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels.one_pass import Call
from suite.kernels.pieces import Pieces

_SOURCE = "plif.cu"
_BYTES = 8  # of shared memory a piece: slope and start
ALIGNMENT = 4  # rows, of what is read by several rows at once


class PlifRows:
    """Look-ups for one call, chunk after chunk.

    Args:
        call: the call.
        pieces: its pieces.
        table: slope and start of every piece [knots], as one int64.
        rows: of the largest chunk.
        window: pieces in shared memory, at most; fewer where they do not fit or there are fewer.
    """

    def __init__(self, call: Call, pieces: Pieces, table: Tensor, rows: int, window: int) -> None:
        device = table.device
        self._call, self._pieces, self._table = call, pieces, table
        self._window = min(window, pieces.shared // _BYTES, pieces.knots) // 2 * 2
        self._statistics, self._gradient = (pieces.kernel(_SOURCE, name) for name in ("statistics", "gradient"))
        self._warps = pieces.blocks * pieces.threads // 32
        # What a warp takes at a time, as plif.cu has it.
        self._rows = 16 // pieces.taken
        self._segments = -(-pieces.width // (32 * pieces.taken))
        self._columns = torch.empty(-(-rows // ALIGNMENT) * ALIGNMENT, dtype=torch.int32, device=device)
        self._parts = torch.empty(self._rows * (self._warps + rows), 2, device=device)
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)
        self.groups = self._groups(rows)

    def statistics(self, z: Tensor, targets: Tensor, log_normaliser: Tensor, log_p: Tensor) -> None:
        """Log-normalisers of the rows of ``z`` [rows, width], and log p of their targets."""
        pieces = self._pieces
        pieces.locate(z)
        self._statistics.launch(
            pieces.blocks,
            pieces.threads,
            z,
            pieces.bias,
            targets,
            self._table,
            pieces.sample,
            log_normaliser,
            log_p,
            self._columns,
            self._parts,
            self._arrived,
            z.shape[0],
            pieces.width,
            self._call.words,
            self._call.experts,
            pieces.knots,
            self._window,
            *pieces.line,
            shared=_BYTES * self._window,
        )

    def gradient(
        self,
        z: Tensor,
        out: Tensor,
        log_normaliser: Tensor,
        share: Tensor,
        scale: Tensor | float,
        of_bias: Tensor | None,
    ) -> None:
        """Gradient by the logits of the last :meth:`statistics`.

        Args:
            z: [rows, width], the logits.
            out: [rows, width], ``scale`` times the gradient; may be ``z``.
            log_normaliser: [rows], at 16 bytes, with room for a multiple of :data:`ALIGNMENT`.
            share: as ``log_normaliser``; the factor on each row.
            scale: a factor, a power of two.
            of_bias: [groups, width], to which the sums over groups of rows are added; None: not wanted.
        """
        pieces, rows = self._pieces, z.shape[0]
        groups = self._groups(rows)
        size = -(-rows // (groups * self._rows)) * self._rows
        self._gradient.launch(
            pieces.blocks,
            pieces.threads,
            z,
            out,
            pieces.bias,
            self._table,
            pieces.sample,
            log_normaliser,
            share,
            self._columns,
            scale if isinstance(scale, Tensor) else pieces.sample,
            share if of_bias is None else of_bias,
            rows,
            pieces.width,
            self._call.words,
            pieces.knots,
            self._window,
            -(-rows // size),
            size,
            int(isinstance(scale, Tensor)),
            int(of_bias is not None),
            1.0 if isinstance(scale, Tensor) else float(scale),
            *pieces.line,
            shared=_BYTES * self._window,
        )

    def _groups(self, rows: int) -> int:
        """Groups of rows, over which a warp goes with its columns: as many as there are warps for."""
        return max(1, min(-(-rows // self._rows), self._warps // self._segments))
