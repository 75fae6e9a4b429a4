"""Learnable increasing functions (Ganea et al. 2019): piecewise linear with many knots, and a positive-weight network.

Both compute their gradients by hand, so that training keeps one tensor of the logits' size and not one a knot or unit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.models.heads.pointwise import Pointwise, Pullback
from suite.spec.types import NonNegativeFloat, PositiveFloat, PositiveInt

# softplus(_UNIT) = 1: a slope parameter here makes the identity.
_UNIT = math.log(math.e - 1.0)


def _pieces(z: Tensor, bound: float, knots: int) -> tuple[Tensor, Tensor]:
    """The piece each z falls on, and its distance from that piece's left knot; the end pieces extend to infinity."""
    delta = 2.0 * bound / knots
    # A logit that is not a number must come out as one, and not as an index out of bounds.
    piece = torch.floor((z + bound) / delta).clamp_(0, knots - 1).nan_to_num_(0.0)
    # In z's own dtype: an integer index times a Python number would silently be float32.
    offset = z - (piece * delta - bound)
    return piece.to(torch.int64), offset


def _bin_sums(piece: Tensor, values: Tensor, bins: int, deterministic: bool) -> Tensor:
    """Sum of ``values`` by bin. The deterministic form sorts, since atomic additions on a GPU come in any order."""
    piece, values = piece.flatten(), values.flatten()
    if not deterministic:
        return values.new_zeros(bins).index_add_(0, piece, values)
    ordered, order = torch.sort(piece, stable=True)
    # float64, because a bin's sum is a difference of running totals over every logit.
    totals = functional.pad(values[order].to(torch.float64).cumsum(0), (1, 0))
    edges = torch.searchsorted(ordered, torch.arange(bins + 1, device=piece.device))
    return totals[edges].diff().to(values.dtype)


def _piecewise(z: Tensor, slope: Tensor, start: Tensor, bound: float) -> Tensor:
    """start[i] + slope[i] (z - knot[i]) on the piece i that holds z."""
    piece, offset = _pieces(z, bound, slope.numel())
    return slope[piece].mul_(offset).add_(start[piece])


def _piecewise_gradients(
    z: Tensor, slope: Tensor, grad: Tensor, bound: float, deterministic: bool, learned: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of :func:`_piecewise` by z and, where they are ``learned``, by the slopes and the knots' values."""
    knots = slope.numel()
    piece, offset = _pieces(z, bound, knots)
    of_slope = of_start = None
    if learned:
        # In place only where no one looks back: a gradient may be differentiated again.
        weighted = offset * grad if torch.is_grad_enabled() else offset.mul_(grad)
        of_slope = _bin_sums(piece, weighted, knots, deterministic)
        of_start = _bin_sums(piece, grad, knots, deterministic)
    return grad * slope[piece], of_slope, of_start


class _PiecewiseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: Tensor, start: Tensor, bound: float, deterministic: bool) -> Tensor:
        ctx.save_for_backward(z, slope)
        ctx.bound, ctx.deterministic = bound, deterministic
        return _piecewise(z, slope, start, bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        z, slope = ctx.saved_tensors
        learned = any(ctx.needs_input_grad[1:3])
        return *_piecewise_gradients(z, slope, grad, ctx.bound, ctx.deterministic, learned), None, None


class Plif(Pointwise):
    """Piecewise linear increasing function on ``knots`` equal pieces of [-bound, bound] (Ganea et al. 2019).

    Slopes are softplus(w), w ~ Normal(log(e - 1), slope_std): half of them below 1, and 1.107 on average where
    slope_std is 1, since softplus is convex. So f starts as a line of that slope. f(-bound) = 0; the end pieces
    extend linearly. Constants as Parthiban et al. 2021, supplement 2.2, give them: 1e5 knots, bound 20.

    Args:
        knots: number of linear pieces, one parameter each.
        bound: half-width of the interval that carries the pieces.
        slope_std: standard deviation of w at the start; 0 starts as the softmax.
        frozen: keep the random slopes as they are drawn (the control of Parthiban et al. 2021, tables 3 and 4).
        deterministic: sum knot gradients so that a GPU run repeats bit for bit; slower but where
            :mod:`suite.kernels.knot_sums` counts them, which repeats anyway.
    """

    def __init__(
        self,
        *,
        knots: PositiveInt = 100_000,
        bound: PositiveFloat = 20.0,
        slope_std: NonNegativeFloat = 1.0,
        frozen: bool = False,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.bound = bound
        self.deterministic = deterministic
        self.raw_slopes = nn.Parameter(torch.randn(knots) * slope_std + _UNIT, requires_grad=not frozen)

    def operands(self) -> tuple[Tensor, ...]:
        """Slope of every piece, and f at its left knot."""
        slope = functional.softplus(self.raw_slopes)
        return slope, (slope.cumsum(0) - slope) * (2.0 * self.bound / slope.numel())

    def pullback(self, z: Tensor, operands: tuple[Tensor, ...]) -> tuple[Tensor, Pullback]:
        """Two look-ups forward; one look-up and two weighted histograms back."""
        learned = operands[0].requires_grad
        slope, start = (o.to(z.dtype) for o in operands)

        def back(grad: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            of_z, *of_operands = _piecewise_gradients(z, slope, grad, self.bound, self.deterministic, learned)
            return of_z, tuple(of_operands)

        return _piecewise(z, slope, start, self.bound), back

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise f."""
        return self.evaluate(z, self.operands())

    def evaluate(self, z: Tensor, operands: tuple[Tensor, ...]) -> Tensor:
        """See :meth:`Pointwise.evaluate`."""
        slope, start = (o.to(z.dtype) for o in operands)
        out: Tensor = _PiecewiseLinear.apply(  # type: ignore[no-untyped-call]
            z, slope, start, self.bound, self.deterministic
        )
        return out


class _TanhSum(torch.autograd.Function):
    """sum_k v_k tanh(u_k z + b_k), one unit at a time: memory of z whatever the number of units."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(z, u, b, v)
        out = torch.zeros_like(z)
        for unit in range(u.numel()):
            out.add_(torch.tanh(torch.addcmul(b[unit], z, u[unit])) * v[unit])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        z, u, b, v = ctx.saved_tensors
        of_z = torch.zeros_like(z)
        of_u, of_b, of_v = torch.empty_like(u), torch.empty_like(b), torch.empty_like(v)
        for unit in range(u.numel()):
            t = torch.tanh(torch.addcmul(b[unit], z, u[unit]))
            of_v[unit] = (grad * t).sum()
            inner = grad * (1.0 - t * t) * v[unit]
            of_b[unit] = inner.sum()
            of_u[unit] = (inner * z).sum()
            of_z.addcmul_(inner, u[unit])
        return of_z, of_u, of_b, of_v


class MonotonicNetwork(Pointwise):
    """One hidden layer with positive weights: f(z) = a z + sum_k v_k tanh(u_k z + b_k), all of a, u, v > 0.

    The universal increasing function of Ganea et al. 2019 (their positive-weight network, 100 units); weights are
    softplus of free parameters. The linear term is ours: it keeps f strictly increasing where every tanh saturates.
    The thresholds -b_k / u_k start spread over [-bound, bound].
    """

    def __init__(self, *, units: PositiveInt = 100, bound: PositiveFloat = 20.0) -> None:
        super().__init__()
        self.raw_linear = nn.Parameter(torch.tensor(_UNIT))
        self.raw_inner = nn.Parameter(torch.randn(units) * 0.1 + _UNIT)
        # Small: the start is close to the identity.
        self.raw_outer = nn.Parameter(torch.randn(units) * 0.1 - 4.0)
        self.bias = nn.Parameter(torch.linspace(-bound, bound, units) if units > 1 else torch.zeros(1))

    def operands(self) -> tuple[Tensor, ...]:
        """a, u [units], b [units] and v [units] of the formula."""
        linear, u, v = (functional.softplus(raw) for raw in (self.raw_linear, self.raw_inner, self.raw_outer))
        return linear, u, self.bias, v

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise f."""
        return self.evaluate(z, self.operands())

    def evaluate(self, z: Tensor, operands: tuple[Tensor, ...]) -> Tensor:
        """See :meth:`Pointwise.evaluate`."""
        linear, u, b, v = (o.to(z.dtype) for o in operands)
        tanh_sum: Tensor = _TanhSum.apply(z, u, b, v)  # type: ignore[no-untyped-call]
        return linear * z + tanh_sum
