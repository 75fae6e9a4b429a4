"""Weights of an LSTM layer in one pass, and their gradients back in one: see :mod:`.recurrence_weights`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

Sizes = tuple[int, int, int, int]  # inputs, hidden, and both padded
_BLOCK = 1024


@triton.jit
def _pack(  # type: ignore[no-untyped-def]
    of_inputs,
    recurrent,
    input_bias,
    recurrent_bias,
    mask,
    out,
    scale,
    INPUTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDE_INPUTS: tl.constexpr,
    WIDE_HIDDEN: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One padded row of both matrices, and its two biases."""
    row = tl.program_id(0)
    unit = row % WIDE_HIDDEN
    real = unit < HIDDEN
    source = (row // WIDE_HIDDEN) * HIDDEN + unit
    dtype = out.dtype.element_ty
    columns = tl.arange(0, BLOCK)
    for start in range(0, WIDE_INPUTS, BLOCK):
        at = start + columns
        w = tl.load(of_inputs + source * INPUTS + at, mask=real & (at < INPUTS), other=0.0)
        tl.store(out + row * WIDE_INPUTS + at, w.to(dtype), mask=at < WIDE_INPUTS)
    base = out + 4 * WIDE_HIDDEN * WIDE_INPUTS
    for start in range(0, WIDE_HIDDEN, BLOCK):
        at = start + columns
        inside = real & (at < HIDDEN)
        w = tl.load(recurrent + source * HIDDEN + at, mask=inside, other=0.0)
        if MASKED:
            w = w * tl.load(mask + source * HIDDEN + at, mask=inside, other=0).to(tl.float32) * scale
        tl.store(base + row * WIDE_HIDDEN + at, w.to(dtype), mask=at < WIDE_HIDDEN)
    base += 4 * WIDE_HIDDEN * WIDE_HIDDEN
    tl.store(base + row, tl.load(input_bias + source, mask=real, other=0.0).to(dtype))
    tl.store(base + 4 * WIDE_HIDDEN + row, tl.load(recurrent_bias + source, mask=real, other=0.0).to(dtype))


@triton.jit
def _unpack(  # type: ignore[no-untyped-def]
    packed,
    mask,
    of_inputs,
    recurrent,
    input_bias,
    recurrent_bias,
    scale,
    INPUTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDE_INPUTS: tl.constexpr,
    WIDE_HIDDEN: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One true row of both matrices' gradients, and of the two biases'."""
    row = tl.program_id(0)
    source = (row // HIDDEN) * WIDE_HIDDEN + row % HIDDEN
    columns = tl.arange(0, BLOCK)
    for start in range(0, INPUTS, BLOCK):
        at = start + columns
        g = tl.load(packed + source * WIDE_INPUTS + at, mask=at < INPUTS, other=0.0)
        tl.store(of_inputs + row * INPUTS + at, g.to(tl.float32), mask=at < INPUTS)
    base = packed + 4 * WIDE_HIDDEN * WIDE_INPUTS
    for start in range(0, HIDDEN, BLOCK):
        at = start + columns
        inside = at < HIDDEN
        g = tl.load(base + source * WIDE_HIDDEN + at, mask=inside, other=0.0).to(tl.float32)
        if MASKED:
            g = g * tl.load(mask + row * HIDDEN + at, mask=inside, other=0).to(tl.float32) * scale
        tl.store(recurrent + row * HIDDEN + at, g, mask=inside)
    base += 4 * WIDE_HIDDEN * WIDE_HIDDEN
    tl.store(input_bias + row, tl.load(base + source).to(tl.float32))
    tl.store(recurrent_bias + row, tl.load(base + 4 * WIDE_HIDDEN + source).to(tl.float32))


def pack_weights(weights: list[Tensor], mask: Tensor | None, scale: float, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """See :func:`suite.models.encoders.recurrence_weights.pack`."""
    _, _, wide_inputs, wide_hidden = sizes
    out = torch.empty(4 * wide_hidden * (wide_inputs + wide_hidden + 2), dtype=dtype, device=weights[0].device)
    _pack[(4 * wide_hidden,)](
        *weights, weights[1] if mask is None else mask, out, scale, *sizes, mask is not None, _BLOCK
    )
    return out


def unpack_gradients(packed: Tensor, mask: Tensor | None, scale: float, sizes: Sizes) -> list[Tensor]:
    """See :func:`suite.models.encoders.recurrence_weights.unpack`."""
    inputs, hidden, _, _ = sizes
    rows = 4 * hidden
    shapes = [(rows, inputs), (rows, hidden), (rows,), (rows,)]
    found = [torch.empty(shape, dtype=torch.float32, device=packed.device) for shape in shapes]
    _unpack[(rows,)](packed, packed if mask is None else mask, *found, scale, *sizes, mask is not None, _BLOCK)
    return found
