"""A PLIF's pieces on a GPU, as the CUDA kernels for them share them: which there are, and where a call's logits are.

See pieces.cu; :mod:`suite.kernels.cuda_rows` looks the pieces up, :mod:`suite.kernels.knot_sums` sums over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels import cuda_source
from suite.kernels.cuda_chunks import Chunks
from suite.kernels.one_pass import Call
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import Pointwise

# A piece's number must be exact in float32, and so that a logit's place on its piece is too, to a few bits.
_KNOTS = range(6, 2**21)


def applies(pointwise: Pointwise, device: torch.device) -> bool:
    """Whether the kernels for pieces can be had here, for this function on this device."""
    return isinstance(pointwise, Plif) and pointwise.raw_slopes.numel() in _KNOTS and cuda_source.available(device)


class Pieces(Chunks):
    """The chunks of a call with a PLIF, the pieces of that, and a sample of the logits.

    Attributes:
        knots: how many pieces.
        line: the bound, and pieces per unit.
        sample: where the logits are, once :meth:`locate` has been called; see pieces.cu.

    Args:
        call: the call, its pointwise function one that :func:`applies`.
        logits: see :class:`Chunks`, as for the others.
        gradient: see there.
        width: see there.
    """

    def __init__(self, call: Call, logits: torch.dtype, gradient: torch.dtype, width: int) -> None:
        assert isinstance(call.pointwise, Plif)
        super().__init__(call, logits, gradient, width)
        self.knots = call.operands[0].numel()
        self.line = call.pointwise.bound, self.knots / (2.0 * call.pointwise.bound)
        self.sample = torch.empty(2, device=self._device)

    def _first(self, z: Tensor) -> None:
        """Take the sample too."""
        bias = self._call.bias
        self.kernel("pieces.cu", "locate").launch(
            1,
            self.threads,
            z,
            self.bias if bias is None else bias,
            self.bias,
            self.sample,
            z.shape[0],
            self.width,
            self._call.words,
            *self.line,
        )
