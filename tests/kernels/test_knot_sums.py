"""The sums of PLIF's pieces, their CUDA kernels run on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from suite.kernels import pieces as shared
from suite.kernels.arithmetic import Products
from suite.kernels.knot_sums import KnotSums
from suite.kernels.one_pass import Call
from suite.kernels.pieces import Pieces
from suite.models.heads.learnable import Plif

pytestmark = pytest.mark.usefixtures("knots_on_cpu")

TOKENS, EXPERTS, WORDS, WIDTH = 24, 3, 301, 304
TYPES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.float32, torch.float16),
]


def call(g: Plif, bias: Tensor | None, row_weight: Tensor | float, tokens: int = TOKENS) -> Call:
    return Call(
        targets=torch.randint(WORDS, (tokens,)),
        log_prior=None,
        bias=bias,
        row_weight=row_weight,
        operands=g.operands(),
        pointwise=g,
        eps=0.0,
        experts=EXPERTS,
        words=WORDS,
        products=Products("float32", torch.empty(0)),
        of_logits=True,
        of_log_prior=False,
        of_bias=False,
        of_operands=True,
    )


def pieces(z: Tensor, g: Plif) -> Tensor:
    """As every float32 form finds them."""
    knots = g.raw_slopes.numel()
    return torch.floor((z + g.bound) * (knots / (2.0 * g.bound))).clamp(0, knots - 1).long()


def gradients(z: Tensor, g: Plif, share: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dt and dL/dz of softmax cross-entropies with weights ``share`` [rows], in float64."""
    slope, start = (o.detach().double() for o in g.operands())
    piece = pieces(z, g)
    t = start[piece] + slope[piece] * (z.double() - (piece * (2.0 * g.bound / slope.numel()) - g.bound))
    of_t = torch.softmax(t, 1)
    of_t[torch.arange(len(z)), targets.repeat_interleave(EXPERTS)] -= 1.0
    of_t *= share[:, None]
    return of_t, of_t * slope[piece]


def by_bin(z: Tensor, of_z: Tensor, g: Plif, dtype: torch.dtype) -> list[Tensor]:
    """The sums from the logits' gradient, taken in ``dtype``."""
    piece, knots = pieces(z, g), g.raw_slopes.numel()
    slope = g.operands()[0].detach().to(dtype)
    of_t = of_z.to(dtype) / slope[piece]
    offset = z.to(dtype) - (piece.to(dtype) * (2.0 * g.bound / knots) - g.bound)
    return [torch.zeros(knots, dtype=dtype).index_add_(0, piece.flatten(), v.flatten()) for v in (of_t * offset, of_t)]


def error(found: Any, truth: list[Tensor]) -> float:
    return max(((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item() for a, b in zip(found, truth, strict=True))


def problem(g: Plif, spread: float, types: tuple[torch.dtype, torch.dtype], biased: bool) -> Any:
    """Logits as they lie in memory, the bias, the logits that are meant, their gradient and its factor, the shares."""
    z = torch.full((TOKENS * EXPERTS, WIDTH), float("nan"))
    z[:, :WORDS] = torch.randn(TOKENS * EXPERTS, WORDS) * spread
    z = z.to(types[0])
    bias = torch.randn(WORDS) if biased else None
    meant = z[:, :WORDS].float() + (0.0 if bias is None else bias)
    weight = torch.rand(TOKENS) / TOKENS
    weight[5] = 0.0
    share = weight.repeat_interleave(EXPERTS) * torch.rand(TOKENS * EXPERTS)
    scale = 2.0**12 if types[1] is torch.float16 else 1.0
    made = call(g, bias, weight)
    of_z = torch.zeros(TOKENS * EXPERTS, WIDTH, dtype=types[1])
    of_z[:, :WORDS] = gradients(meant, g, share.double(), made.targets)[1] * scale
    return made, z, meant, of_z, scale


def counted(made: Call, z: Tensor, of_z: Tensor, scale: Tensor | float, window: int, chunk: int = 30) -> list[Tensor]:
    sums = KnotSums(made, Pieces(made, z.dtype, of_z.dtype, WIDTH), window)
    for at in range(0, len(z), chunk):
        sums.add(z[at : at + chunk], of_z[at : at + chunk], scale)
    return list(sums.finish())


@pytest.mark.parametrize(("types", "biased"), list(zip(TYPES, [False, True, False, True], strict=True)))
@pytest.mark.parametrize(
    ("knots", "bound", "spread"), [(300, 4.0, 1.0), (1000, 20.0, 15.0), (6, 1.0, 2.0), (20_000, 20.0, 0.5)]
)
def test_every_logit_is_counted(types: Any, biased: bool, knots: int, bound: float, spread: float) -> None:
    torch.manual_seed(knots)
    g = Plif(knots=knots, bound=bound)
    made, z, meant, of_z, scale = problem(g, spread, types, biased)
    truth = by_bin(meant, of_z[:, :WORDS].double() / scale, g, torch.float64)
    reference = by_bin(meant, of_z[:, :WORDS].float() / scale, g, torch.float32)
    # The distance from the knot is that of float32 numbers near the bound, here and in the reference.
    place = bound * 2.0**-24 / (2.0 * bound / knots)
    for factor in (scale, torch.tensor(scale)):
        found = counted(made, z, of_z, factor, 600)
        assert error(found[1:], truth[1:]) <= 1.5 * error(reference[1:], truth[1:]) + 1e-6
        assert error(found[:1], truth[:1]) <= 1.5 * error(reference[:1], truth[:1]) + 1e-6 + place


def test_the_order_the_window_and_the_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    g = Plif(knots=1000, bound=5.0)
    made, z, _, of_z, scale = problem(g, 1.5, TYPES[0], True)
    first = counted(made, z, of_z, scale, 256)
    others = [counted(made, z, of_z, scale, 64), counted(made, z, of_z, scale, 256, 7)]
    monkeypatch.setattr(shared, "limits", lambda device: (5, 2048))
    monkeypatch.setattr(shared, "THREADS", 128)
    monkeypatch.setenv("CUDA_ON_CPU_REVERSED", "1")
    others.append(counted(made, z, of_z, scale, 256))
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("chunk", [72, 10])
def test_sums_beyond_32_bits_are_carried(sign: float, chunk: int) -> None:
    """All of the gradient on one piece: some 2^45, in a launch, and over launches."""
    g = Plif(knots=100, bound=1.0)
    made = call(g, None, 1.0 / TOKENS)
    z = torch.full((TOKENS * EXPERTS, WIDTH), 0.205)
    of_z = torch.zeros_like(z)
    of_z[:, :WORDS] = sign * torch.rand(len(z), WORDS) / (TOKENS * EXPERTS * WORDS)
    found = counted(made, z, of_z, 1.0, 64, chunk)
    truth = by_bin(z[:, :WORDS], of_z[:, :WORDS].double(), g, torch.float64)
    assert found[1].abs().argmax() == 60
    assert error(found[1:], truth[1:]) < 1e-6
    assert error(found, truth) < 1e-4


def test_small_gradients_are_not_lost_beside_large_ones() -> None:
    """A trained model's: a few words have nearly all of the probability; the sums over the others must hold too."""
    torch.manual_seed(1)
    g = Plif(knots=2000, bound=20.0, slope_std=0.5)
    made, z, meant, of_z, scale = problem(g, 4.0, TYPES[0], False)
    of_z.clamp_min_(0.0)  # the targets are large wherever they are
    truth = by_bin(meant, of_z[:, :WORDS].double(), g, torch.float64)[1]
    found = counted(made, z, of_z, scale, 2000)[1]
    low = slice(800, 900)
    assert 0.0 < truth[low].sum() < 1e-3 * truth.sum()
    assert (found[low] - truth[low]).norm() < 1e-3 * truth[low].norm()


def test_a_gradient_that_is_no_number_shows_in_every_sum() -> None:
    g = Plif(knots=100, bound=4.0)
    made, z, _, of_z, scale = problem(g, 1.0, TYPES[0], True)
    of_z[3, 4] = float("nan")
    assert all(torch.isnan(sums).all() for sums in counted(made, z, of_z, scale, 64))


def test_without_weight_or_rows_or_slope_sums_are_zero() -> None:
    g = Plif(knots=100, bound=4.0)
    made, z, _, of_z, scale = problem(g, 1.0, TYPES[0], True)
    weightless = made._replace(row_weight=torch.zeros(TOKENS))
    assert all((sums == 0.0).all() for sums in counted(weightless, z, torch.zeros_like(of_z), scale, 64))
    assert all((sums == 0.0).all() for sums in counted(made, z[:0], of_z[:0], scale, 64))
    flat = made._replace(operands=(made.operands[0] * (torch.arange(100) != 50), made.operands[1]))
    sums = counted(flat, z, of_z, scale, 64)
    assert all(v[50] == 0.0 and torch.isfinite(v).all() for v in sums)
