"""The row kernels of a PLIF whose table lies in shared memory, in place of Triton's three: see plif.cu.

They give what :func:`suite.kernels.triton_rows.statistics`, :func:`suite.kernels.triton_rows.mix` and
:func:`suite.kernels.triton_gradient.gradient` give.
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
        device = call.targets.device
        self._call, self._pieces, self._table = call, pieces, table
        self._targets = call.targets.contiguous()
        self._window = min(window, pieces.shared // _BYTES, pieces.knots) // 2 * 2
        self._statistics, self._gradient = (pieces.kernel(_SOURCE, name) for name in ("statistics", "gradient"))
        self._warps = pieces.blocks * pieces.threads // 32
        # What a warp takes at a time, as plif.cu has it.
        self._rows = 16 // pieces.taken
        self._segments = -(-pieces.width // (32 * pieces.taken))
        self._log_p = torch.empty(rows, device=device)
        self._columns = torch.empty(-(-rows // ALIGNMENT) * ALIGNMENT, dtype=torch.int32, device=device)
        self._parts = torch.empty(self._rows * (self._warps + rows), 2, device=device)
        self._arrived, self._scored = torch.zeros(2, rows, dtype=torch.int32, device=device)
        self.groups = self._groups(rows)

    def statistics(
        self,
        z: Tensor,
        tokens: slice,
        log_normaliser: Tensor,
        share: Tensor,
        nll: Tensor,
        of_log_prior: Tensor | None,
        log_eps: float,
    ) -> None:
        """The losses of a chunk's tokens and what goes with them.

        Args:
            z: [rows, width], the logits.
            tokens: which of the call's.
            log_normaliser: [rows], to be filled.
            share: [rows], to be filled: weight and responsibility of every expert.
            nll: [tokens], to be filled.
            of_log_prior: [tokens, experts], to be filled; None: not wanted.
            log_eps: the logarithm of eps, if that is not zero.
        """
        call, pieces, unused = self._call, self._pieces, self._log_p
        pieces.locate(z)
        weighted = isinstance(call.row_weight, Tensor)
        self._statistics.launch(
            pieces.blocks,
            pieces.threads,
            z,
            pieces.bias,
            self._targets[tokens],
            self._table,
            pieces.sample,
            unused if call.log_prior is None else call.log_prior[tokens],
            call.row_weight[tokens] if isinstance(call.row_weight, Tensor) else unused,
            log_normaliser,
            self._log_p,
            self._columns,
            nll,
            share,
            unused if of_log_prior is None else of_log_prior,
            self._parts,
            self._arrived,
            self._scored,
            z.shape[0],
            pieces.width,
            call.words,
            call.experts,
            int(call.log_prior is not None),
            int(weighted),
            int(call.eps > 0),
            int(of_log_prior is not None),
            pieces.knots,
            self._window,
            log_eps,
            1.0 if isinstance(call.row_weight, Tensor) else float(call.row_weight),
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
            scale if isinstance(scale, Tensor) else self._log_p,
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
