"""The update of a step on the GPU: clipping, SGD and every running average, two launches for all parameters.

Everything that changes from step to step lives on the device (the learning rate's factor, the averages' counts), so
the launches can be captured in a CUDA graph and replayed. A step whose gradient is not finite, which a float16
backward pass can give, changes nothing and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor, nn

from suite.training.averages import RunningAverage
from suite.training.multi_tensor_triton import square_sums, update

_BLOCK, _TILES, _WARPS = 1024, 16, 8
_PIECE = _BLOCK * _TILES


class MultiTensorUpdate:
    """p -= rate factor (clipped gradient + weight_decay p), then each average, for all parameters at once.

    Args:
        parameters: float32, on one device.
        rates: base learning rate of each.
        averages: running averages to keep, over the same parameters.
        weight_decay: added to the gradient, as torch.optim.SGD does.
        clip: bound of the global gradient norm, or None.
        scale: what the loss was multiplied with; divided out of the gradients.
        sgd: False where another optimiser has stepped and only the averages are kept here.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        rates: Sequence[float],
        averages: Sequence[RunningAverage],
        weight_decay: float,
        clip: float | None,
        scale: float,
        sgd: bool = True,
    ) -> None:
        self._parameters = list(parameters)
        self._averages = list(averages)
        self._settings = scale, clip or 0.0, weight_decay
        self._clip, self._sgd = clip is not None, sgd
        device = self._parameters[0].device
        pieces = [(i, at) for i, p in enumerate(self._parameters) for at in range(0, p.numel(), _PIECE)]
        self._pieces = len(pieces)
        self._tensor_of = torch.tensor([i for i, _ in pieces], dtype=torch.int32, device=device)
        self._offset_of = torch.tensor([at for _, at in pieces], dtype=torch.int64, device=device)
        self._sizes = torch.tensor([p.numel() for p in self._parameters], dtype=torch.int64, device=device)
        self._rates = torch.tensor(list(rates), dtype=torch.float32, device=device)
        self._partial = torch.empty(self._pieces, dtype=torch.float32, device=device)
        self._where = self.addresses(self._parameters)
        means = [value for average in self._averages for value in average.values]
        self._means = self.addresses(means) if means else self._where
        # An average's n-th update (from 0) weighs 1 / max(1, n).
        self._counts = torch.tensor([a.updates for a in self._averages] or [0], dtype=torch.int64, device=device)
        self.factor = torch.ones((), dtype=torch.float32, device=device)
        self._taken = torch.ones((), dtype=torch.int64, device=device)  # by the last step: 1, or 0 if it was skipped
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def changing(self) -> list[Tensor]:
        """What a launch changes beside parameters and averages."""
        return [self._counts, self.skipped, self._taken]

    def settle(self) -> None:
        """Tell the averages how many updates they have taken in; waits for the device."""
        for average, count in zip(self._averages, self._counts.tolist(), strict=False):
            average.updates = count

    @staticmethod
    def addresses(tensors: Sequence[Tensor]) -> Tensor:
        """Where each tensor's data lies, as int64 [len(tensors)] on their device."""
        for tensor in tensors:
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise TypeError(
                    f"expected contiguous float32 tensors, got {tensor.dtype} with strides {tensor.stride()}"
                )
        return torch.tensor([t.data_ptr() for t in tensors], dtype=torch.int64).to(tensors[0].device)

    def __call__(self, gradients: Tensor) -> None:
        """Launch the update for the gradients whose :meth:`addresses` are given (read when the launch runs)."""
        shared = {"TILES": _TILES, "BLOCK": _BLOCK, "num_warps": _WARPS}
        grid = (self._pieces,)
        tables = self._tensor_of, self._offset_of, self._sizes, self._partial
        if self._sgd:
            square_sums[grid](gradients, *tables, **shared)
        update[grid](
            gradients,
            self._where,
            self._means,
            self._rates,
            *tables,
            self.factor,
            self._counts,
            self._taken,
            *self._settings,
            PIECES=self._pieces,
            TENSORS=len(self._parameters),
            AVERAGES=len(self._averages),
            CLIP=self._clip,
            STEP=self._sgd,
            LANES=min(1024, triton.next_power_of_2(self._pieces)),
            **shared,
        )
        self._counts += self._taken
        self.skipped += 1 - self._taken
