"""Matrix products in the arithmetic of a recipe: low-precision operands, float32 sums.

``float16`` and ``bfloat16`` round both operands of every product; the sums, and everything that is not a product, stay
in the dtype of the arguments. A GPU multiplies the rounded operands as they are; a CPU rounds and multiplies in the
arguments' dtype, so a recipe means the same everywhere. ``tf32`` and ``float32`` take the arguments themselves: torch's
own flag tells them apart on a GPU, and a CPU has no TF32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from suite.spec.recipe import Arithmetic

_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# float16 gradients are scaled so that the largest is near this: six bits below overflow for sums over them, and
# 34 bits above the smallest number that is not zero.
PEAK = 1024.0
_ALIGNED = 8  # half-precision numbers in the 16 bytes that tensor cores are fed with
_aten = torch.ops.aten


class Products:
    """The products of one call, all in one arithmetic.

    Args:
        arithmetic: see the module.
        like: any argument of the call; gives the dtype of the results and the device.
    """

    def __init__(self, arithmetic: Arithmetic, like: Tensor) -> None:
        self.half = _HALF.get(arithmetic)
        self.dtype, self.device = like.dtype, like.device
        # Whether operands are kept in half precision, and not only rounded to it.
        self.native = self.half is not None and like.device.type == "cuda"
        self.tf32 = arithmetic == "tf32" and like.device.type == "cuda"

    @property
    def operand_dtype(self) -> torch.dtype:
        """Dtype that operands have in memory."""
        return self.half if self.native and self.half is not None else self.dtype

    @property
    def needs_scale(self) -> bool:
        """Whether small gradients would vanish in the operands' range."""
        return self.half is torch.float16

    def operand(self, tensor: Tensor) -> Tensor:
        """``tensor`` [rows, columns] as a product takes it; itself where nothing is to be rounded."""
        if self.half is None:
            return tensor
        if self.native:
            return self.empty(tensor.shape).copy_(tensor)
        return tensor.to(self.half).to(self.dtype)

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Room for an operand [rows, columns], its rows as far apart as a GPU's fastest kernels need them."""
        columns = shape[1]
        stride = -(-columns // _ALIGNED) * _ALIGNED if self.device.type == "cuda" else columns
        return torch.empty(shape[0], stride, dtype=dtype or self.operand_dtype, device=self.device)[:, :columns]

    def round_(self, tensor: Tensor) -> Tensor:
        """:meth:`operand`, in place where the dtype allows it."""
        if self.half is None or self.native:
            return self.operand(tensor)
        return tensor.copy_(tensor.to(self.half))

    def multiply(self, a: Tensor, b: Tensor, out: Tensor, alpha: float = 1.0) -> Tensor:
        """``out = alpha a b`` of two operands; ``out`` has the dtype of the arguments or that of the operands."""
        if a.dtype == out.dtype:
            return torch.mm(a, b, out=out) if alpha == 1.0 else torch.addmm(out, a, b, beta=0, alpha=alpha, out=out)
        if alpha == 1.0 and _wide(out.device) != "none":
            _aten.mm.dtype_out(a, b, out.dtype, out=out)
            return out
        return self.add(out, a, b, alpha, first=True)

    def add(self, total: Tensor, a: Tensor, b: Tensor, alpha: float = 1.0, *, first: bool = False) -> Tensor:
        """``total += alpha a b`` in place; where it is the ``first`` term, ``total`` may hold anything before."""
        beta = 0 if first else 1
        if a.dtype == total.dtype:
            return torch.addmm(total, a, b, beta=beta, alpha=alpha, out=total)
        form = _wide(total.device)
        if form == "addmm":
            _aten.addmm.dtype_out(total, a, b, total.dtype, beta=beta, alpha=alpha, out=total)
            return total
        if form == "baddbmm":
            batch = total.unsqueeze(0)
            _aten.baddbmm.dtype_out(
                batch, a.unsqueeze(0), b.unsqueeze(0), total.dtype, beta=beta, alpha=alpha, out=batch
            )
            return total
        term = torch.mm(a, b).to(total.dtype)
        return total.copy_(term.mul_(alpha)) if first else total.add_(term, alpha=alpha)


@cache
def _wide(device: torch.device) -> str:
    """Which operation adds a product of half-precision operands to a float32 matrix in place; some releases lack it."""
    a = torch.eye(16, dtype=torch.bfloat16, device=device)
    for form in ("addmm", "baddbmm"):
        total = torch.ones(16, 16, device=device)
        try:
            if form == "addmm":
                _aten.addmm.dtype_out(total, a, a, torch.float32, beta=1, alpha=0.5, out=total)
            else:
                batch, lone = total.unsqueeze(0), a.unsqueeze(0)
                _aten.baddbmm.dtype_out(batch, lone, lone, torch.float32, beta=1, alpha=0.5, out=batch)
        except (RuntimeError, AttributeError):
            continue
        return form
    return "none"


def power_of_two(largest: Tensor, peak: float = PEAK) -> Tensor:
    """The power of two, as a scalar tensor, that brings ``largest`` to between peak / 2 and ``peak``."""
    largest = largest.detach().float().clamp_min(1e-30)
    # The quotient by the mantissa is a power of two exactly; exp2 may be off by a bit.
    return torch.frexp(largest).mantissa * peak / largest


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, arithmetic: Arithmetic) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.arithmetic = arithmetic
        products = Products(arithmetic, x)
        out = x.new_empty(x.shape[0], weight.shape[0])
        return products.multiply(products.operand(x), products.operand(weight).t(), out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient that is itself differentiated: rounding has none of its own
            return grad @ weight, grad.t() @ x, None
        products = Products(ctx.arithmetic, x)
        scale = power_of_two(grad.abs().amax()) if products.needs_scale else None
        operand = products.operand(grad if scale is None else grad * scale)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = products.multiply(operand, products.operand(weight), torch.empty_like(x))
        if ctx.needs_input_grad[1]:
            of_weight = products.multiply(operand.t(), products.operand(x), torch.empty_like(weight))
        if scale is not None:
            of_x, of_weight = (None if g is None else g.div_(scale) for g in (of_x, of_weight))
        return of_x, of_weight, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, arithmetic: Arithmetic) -> Tensor:
    """``x W^T + b`` [..., out], the product in ``arithmetic``, forward and backward; differentiable twice."""
    if arithmetic not in _HALF:
        return functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    out: Tensor = _Linear.apply(flat, weight, arithmetic)  # type: ignore[no-untyped-call]
    out = out.view(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias
