"""Weights of an LSTM layer as its kernels read them: packed, cast, weight-dropped and zero-padded; and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.kernels.devices import runs_triton


class Sizes(NamedTuple):
    """Of one layer: true and padded numbers of input and hidden features."""

    inputs: int
    hidden: int
    wide_inputs: int
    wide_hidden: int

    @property
    def packed(self) -> int:
        """Elements of the packed weights: input and recurrent matrix, then their biases."""
        return 4 * self.wide_hidden * (self.wide_inputs + self.wide_hidden + 2)

    def views(self, packed: Tensor) -> list[Tensor]:
        """The four weights inside a packed buffer: [4 H, I], [4 H, H], [4 H], [4 H], padded."""
        rows = 4 * self.wide_hidden
        parts = torch.split(packed, [rows * self.wide_inputs, rows * self.wide_hidden, rows, rows])
        return [parts[0].view(rows, -1), parts[1].view(rows, -1), parts[2], parts[3]]


def pack(weights: list[Tensor], mask: Tensor | None, scale: float, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """The weights as cuDNN reads them: recurrent ones masked and scaled, all cast and zero-padded.

    Args:
        weights: float32 [4 H, I], [4 H, H], [4 H], [4 H]; gates in torch's order i, f, g, o.
        mask: [4 H, H] of 0 and 1 for the recurrent matrix, or None.
        scale: factor on the kept recurrent weights.
        sizes: true and padded sizes.
        dtype: of the result.
    """
    if runs_triton(weights[0].device):
        from suite.models.encoders.recurrence_triton import pack_weights

        return pack_weights(weights, mask, scale, sizes, dtype)
    out = torch.zeros(sizes.packed, dtype=dtype, device=weights[0].device)
    for index, (view, weight) in enumerate(zip(sizes.views(out), weights, strict=True)):
        if index == 1 and mask is not None:
            weight = weight * mask * scale
        gates = view.view(4, sizes.wide_hidden, *view.shape[1:])
        gates[:, : sizes.hidden, ...][_columns(weight)] = weight.view(4, sizes.hidden, *weight.shape[1:]).to(dtype)
    return out


def unpack(packed: Tensor, mask: Tensor | None, scale: float, sizes: Sizes) -> list[Tensor]:
    """Gradients of the float32 weights from the gradient of what :func:`pack` made of them."""
    if runs_triton(packed.device):
        from suite.models.encoders.recurrence_triton import unpack_gradients

        return unpack_gradients(packed, mask, scale, sizes)
    found = []
    for index, view in enumerate(sizes.views(packed)):
        gates = view.view(4, sizes.wide_hidden, *view.shape[1:])[:, : sizes.hidden]
        if index < 2:
            gates = gates[..., : (sizes.inputs, sizes.hidden)[index]]
        grad = gates.flatten(0, 1).float()
        found.append(grad * mask * scale if index == 1 and mask is not None else grad)
    return found


def _columns(weight: Tensor) -> tuple[Any, ...]:
    return (..., slice(weight.shape[1])) if weight.dim() == 2 else (...,)
