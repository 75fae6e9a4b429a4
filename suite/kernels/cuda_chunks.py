"""What the CUDA kernels over a call's chunks of logits share: how they are launched, and for which dtypes."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.kernels import cuda_source
from suite.kernels.one_pass import Call

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
THREADS = 1024


def limits(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a GPU, and bytes of shared memory that a block may have there."""
    return torch.cuda.get_device_properties(device).multi_processor_count, cuda_source.largest_shared(device)


class Chunks:
    """The chunks of one call.

    Attributes:
        blocks: one to a multiprocessor.
        threads: of a block.
        shared: bytes of shared memory that a block may have.
        width: length of a row of logits in memory.
        taken: elements that a thread takes from a row at a time, as pieces.cu has it.
        bias: [width] once :meth:`locate` has been called.

    Args:
        call: the call.
        logits: dtype of the logits.
        gradient: that of their gradient.
        width: a multiple of 8.
    """

    def __init__(self, call: Call, logits: torch.dtype, gradient: torch.dtype, width: int) -> None:
        self._call, self._device = call, call.targets.device
        self.width, self.threads = width, THREADS
        self.blocks, self.shared = limits(self._device)
        self.taken = 4 if torch.float32 in (logits, gradient) else 8
        self._defines = {
            "LOGITS": _TYPES[logits],
            "GRADIENT": _TYPES[gradient],
            "BIAS": int(call.bias is not None),
        }
        self.bias = torch.empty(width if call.bias is not None else 4, device=self._device)
        self._located = False

    def kernel(self, source: str, name: str, **defines: int) -> cuda_source.Kernel:
        """A kernel of this call's dtypes; see :func:`suite.kernels.cuda_source.kernel`."""
        return cuda_source.kernel(source, name, self._device, **self._defines, **defines)

    def locate(self, z: Tensor) -> None:
        """Lay out the bias, before the first chunk [rows, width]; later ones change nothing."""
        if not self._located:
            self._located = True
            self._first(z)

    def _first(self, z: Tensor) -> None:
        if self._call.bias is not None:
            self.bias[: self._call.words].copy_(self._call.bias)
            self.bias[self._call.words :].zero_()
