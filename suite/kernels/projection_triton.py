"""The experts' contexts on a GPU: bias, tanh and dropout in one pass after the product, and in one pass back.

Step by step these are five passes forward and nine back over the largest activations of a mixture, N x K d values.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from suite.kernels.arithmetic import Products, linear, power_of_two
from suite.spec.recipe import Arithmetic

_BLOCK, _ROWS, _GROUP, _WARPS = 256, 4, 32, 4
_SIZES = ["rows", "streams"]


@triton.jit(do_not_specialize=_SIZES)
def _activate(  # type: ignore[no-untyped-def]
    values,
    bias,
    mask,
    rows,
    streams,
    scale,
    WIDTH: tl.constexpr,
    MASKED: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """values = scale mask tanh(values + bias), in place; row n takes row n mod ``streams`` of the mask."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = column < WIDTH
    added = tl.load(bias + column, mask=here, other=0.0)
    for first in range(0, GROUP, ROWS):
        row = tl.program_id(1) * GROUP + first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & here[None, :]
        at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
        x = tl.load(values + at, mask=inside, other=0.0) + added[None, :]
        # Within 1e-7 of tanh, absolutely; the exponential's overflow gives 1.
        y = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x))
        if MASKED:
            y *= scale * tl.load(mask + (row % streams)[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)
        tl.store(values + at, y, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _back(  # type: ignore[no-untyped-def]
    gradient,
    values,
    mask,
    inner,
    sums,
    largest,
    rows,
    streams,
    scale,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``inner`` = gradient scale mask (1 - tanh^2), its sums over a group's rows, and its largest magnitude there.

    ``values`` are the forward pass's, and tanh is theirs over ``scale``: where the mask is 0 so is the gradient.
    """
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = column < WIDTH
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    peak = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in range(0, GROUP, ROWS):
        row = tl.program_id(1) * GROUP + first + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & here[None, :]
        at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
        y = tl.load(values + at, mask=inside, other=0.0)
        g = tl.load(gradient + at, mask=inside, other=0.0)
        if MASKED:
            y /= scale
            g *= scale * tl.load(mask + (row % streams)[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)
        g *= 1.0 - y * y
        total += g
        peak = tl.maximum(peak, tl.abs(g))
        to = row.to(tl.int64)[:, None] * STRIDE + column[None, :]
        tl.store(inner + to, g.to(inner.dtype.element_ty), mask=inside)
    tl.store(sums + tl.program_id(1) * WIDTH + column, tl.sum(total, 0), mask=here)
    tl.store(largest + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.max(tl.max(peak, 1), 0))


class _ExpertContexts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        contexts: Tensor,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        scale: float,
        arithmetic: Arithmetic,
    ) -> Tensor:
        products = Products(arithmetic, contexts)
        operands = products.operand(contexts), products.operand(weight)
        rows, width = contexts.shape[0], weight.shape[0]
        out = contexts.new_empty(rows, width)
        products.multiply(operands[0], operands[1].t(), out)
        ctx.streams = 1 if mask is None else mask.shape[0]
        grid = triton.cdiv(width, _BLOCK), triton.cdiv(rows, _GROUP)
        _activate[grid](
            out,
            bias,
            out if mask is None else mask,
            rows,
            ctx.streams,
            scale,
            WIDTH=width,
            MASKED=mask is not None,
            GROUP=_GROUP,
            ROWS=_ROWS,
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )
        ctx.save_for_backward(contexts, weight, bias, mask, out)
        ctx.operands, ctx.scale, ctx.arithmetic = operands, scale, arithmetic
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        contexts, weight, bias, mask, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: in operations that can be
            tanh = torch.tanh(linear(contexts, weight, bias, ctx.arithmetic))
            inner = grad * (1.0 - tanh * tanh)
            if mask is not None:
                inner = (inner.view(-1, *mask.shape) * mask * ctx.scale).view_as(inner)
            return inner @ weight, inner.t() @ contexts, inner.sum(0), None, None, None
        products = Products(ctx.arithmetic, contexts)
        # A float16 operand waits for its factor, which is known after the pass.
        direct = products.empty(grad.shape) if not products.needs_scale else torch.empty_like(out)
        sums, largest = _inner_gradient(grad.contiguous(), out, mask, direct, ctx)
        operand, factor = direct, None
        if products.needs_scale:
            factor = power_of_two(largest.amax())
            operand = products.empty(grad.shape)
            torch.mul(direct, factor, out=operand)
        x, w = ctx.operands
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = products.multiply(operand, w, torch.empty_like(contexts))
        if ctx.needs_input_grad[1]:
            of_weight = products.multiply(operand.t(), x, torch.empty_like(weight))
        if factor is not None:
            of_x, of_weight = (None if g is None else g.div_(factor) for g in (of_x, of_weight))
        return of_x, of_weight, sums.sum(0), None, None, None


def _inner_gradient(grad: Tensor, out: Tensor, mask: Tensor | None, inner: Tensor, ctx: Any) -> tuple[Tensor, Tensor]:
    """Fill ``inner``; its sums by group of rows and column [groups, K d], and largest magnitudes."""
    rows, width = grad.shape
    blocks, groups = triton.cdiv(width, _BLOCK), triton.cdiv(rows, _GROUP)
    sums, largest = grad.new_empty(groups, width), grad.new_empty(groups, blocks)
    _back[(blocks, groups)](
        grad,
        out,
        out if mask is None else mask,
        inner,
        sums,
        largest,
        rows,
        ctx.streams,
        ctx.scale,
        WIDTH=width,
        STRIDE=inner.stride(0),
        MASKED=mask is not None,
        GROUP=_GROUP,
        ROWS=_ROWS,
        BLOCK=_BLOCK,
        num_warps=_WARPS,
    )
    return sums, largest


def expert_contexts(
    contexts: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None, scale: float, arithmetic: Arithmetic
) -> Tensor:
    """scale mask tanh(contexts W^T + b) [N, K d] of float32 ``contexts`` [N, H]; ``mask`` [B, K d], row n mod B."""
    made: Tensor = _ExpertContexts.apply(contexts, weight, bias, mask, scale, arithmetic)  # type: ignore[no-untyped-call]
    return made
