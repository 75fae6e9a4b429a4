"""A PLIF's pieces on a GPU, as the CUDA kernels for them share them: which there are, and where a call's logits are.

See pieces.cu; :mod:`suite.kernels.plif_rows` looks the pieces up, :mod:`suite.kernels.knot_sums` sums over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels import cuda_source
from suite.kernels.one_pass import Call
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import Pointwise

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# A piece's number must be exact in float32, and so that a logit's place on its piece is too, to a few bits.
_KNOTS = range(6, 2**21)
THREADS = 1024


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory that a block may have there."""
    return torch.cuda.get_device_properties(device).multi_processor_count, cuda_source.largest_shared(device)


def applies(pointwise: Pointwise, device: torch.device) -> bool:
    """Whether the kernels for pieces can be had here, for this function on this device."""
    return isinstance(pointwise, Plif) and pointwise.raw_slopes.numel() in _KNOTS and cuda_source.available(device)


class Pieces:
    """The pieces of a call's PLIF, and a sample of its logits.

    Attributes:
        knots: how many pieces.
        line: the bound, and pieces per unit.
        blocks: one to a multiprocessor.
        threads: of a block.
        shared: bytes of shared memory that a block may have.
        width: length of a row of logits in memory.
        taken: elements that a thread takes from a row at a time, as pieces.cu has it.
        bias: [width] once :meth:`locate` has been called.
        sample: where the logits are, from then on; see pieces.cu.

    Args:
        call: the call, its pointwise function one that :func:`applies`.
        logits: dtype of the logits.
        gradient: that of their gradient.
        width: a multiple of 8.
    """

    def __init__(self, call: Call, logits: torch.dtype, gradient: torch.dtype, width: int) -> None:
        assert isinstance(call.pointwise, Plif)
        self._call, self._device = call, call.targets.device
        self.width, self.threads = width, THREADS
        self.knots = call.operands[0].numel()
        self.line = call.pointwise.bound, self.knots / (2.0 * call.pointwise.bound)
        self.blocks, self.shared = limits(self._device)
        self.taken = 4 if torch.float32 in (logits, gradient) else 8
        self._defines = {
            "LOGITS": _TYPES[logits],
            "GRADIENT": _TYPES[gradient],
            "BIAS": int(call.bias is not None),
        }
        self.bias = torch.empty(width if call.bias is not None else 4, device=self._device)
        self.sample = torch.empty(2, device=self._device)
        self._located = False

    def kernel(self, source: str, name: str, **defines: int) -> cuda_source.Kernel:
        """A kernel of this call's dtypes; see :func:`suite.kernels.cuda_source.kernel`."""
        return cuda_source.kernel(source, name, self._device, **self._defines, **defines)

    def locate(self, z: Tensor) -> None:
        """Take the sample from the first chunk [rows, width], and lay out the bias; later chunks change nothing."""
        if self._located:
            return
        self._located, bias = True, self._call.bias
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
