"""Locked dropout on a GPU in one pass each way, into another dtype and zero-padded where that is wanted."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 512


@triton.jit(do_not_specialize=["batch", "to_batch"])
def _masked(  # type: ignore[no-untyped-def]
    x,
    mask,
    out,
    scale,
    batch,
    to_batch,
    COLUMNS: tl.constexpr,
    TO_COLUMNS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row (t, b) of ``out`` [T, to_batch, TO_COLUMNS] = scale mask[b] x[t, b], zero where ``x`` has no such element."""
    row = tl.program_id(0)
    b = row % to_batch
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (b < batch) & (column < MASK_COLUMNS)
    source = (row // to_batch * batch + b).to(tl.int64)
    value = tl.load(x + source * COLUMNS + column, mask=inside, other=0.0).to(tl.float32)
    value *= scale * tl.load(mask + b * MASK_COLUMNS + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * TO_COLUMNS + column, value.to(out.dtype.element_ty), mask=column < TO_COLUMNS)


def _apply(x: Tensor, mask: Tensor, scale: float, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    out = torch.empty(shape, dtype=dtype, device=x.device)
    steps, to_batch, to_columns = shape
    _masked[(steps * to_batch, triton.cdiv(to_columns, _BLOCK))](
        x.contiguous(),
        mask,
        out,
        scale,
        x.shape[1],
        to_batch,
        COLUMNS=x.shape[2],
        TO_COLUMNS=to_columns,
        MASK_COLUMNS=mask.shape[-1],
        BLOCK=_BLOCK,
        num_warps=4,
    )
    return out


class _Locked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor, scale: float, batch: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        return _apply(x, mask, scale, (x.shape[0], batch, features), dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: linear, so in operations that can be
            whole = grad[:, : ctx.shape[1], : ctx.shape[2]].to(ctx.dtype) * mask * ctx.scale
            return whole, None, None, None, None, None
        return _apply(grad, mask, ctx.scale, ctx.shape, ctx.dtype), None, None, None, None, None


def locked(x: Tensor, mask: Tensor, scale: float, batch: int, features: int, dtype: torch.dtype) -> Tensor:
    """scale mask x of ``x`` [T, B, F] and ``mask`` [1, B, F], as [T, batch, features] in ``dtype`` with zeros."""
    out: Tensor = _Locked.apply(x, mask, scale, batch, features, dtype)  # type: ignore[no-untyped-call]
    return out
