"""PLIF's look-ups in shared memory, their CUDA kernels run on the CPU, against float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from test_knot_sums import EXPERTS, TYPES, call, gradients
from test_knot_sums import pieces as pieces_of
from torch import Tensor

from suite.kernels import pieces as shared
from suite.kernels.one_pass import Call
from suite.kernels.pieces import Pieces
from suite.kernels.plif_rows import ALIGNMENT, PlifRows
from suite.models.heads.learnable import Plif

pytestmark = pytest.mark.usefixtures("knots_on_cpu")
WORDS, WIDTH = 301, 304  # of test_knot_sums


class Given(NamedTuple):
    """A call, logits as they lie in memory, and as they are meant, with the bias."""

    call: Call
    z: Tensor
    meant: Tensor
    share: Tensor


class Found(NamedTuple):
    """What the kernels give, chunk after chunk."""

    lse: Tensor
    log_p: Tensor
    of_z: Tensor
    of_bias: Tensor


def given(g: Plif, spread: float, dtype: torch.dtype, biased: bool, tokens: int = 24) -> Given:
    bias = torch.randn(WORDS) if biased else None
    rows = tokens * EXPERTS
    z = torch.full((rows, WIDTH), float("nan"))
    z[:, :WORDS] = torch.randn(rows, WORDS) * spread
    z = z.to(dtype)
    meant = z[:, :WORDS].float() + (0.0 if bias is None else bias)
    return Given(call(g, bias, 1.0 / tokens, tokens), z, meant, torch.rand(rows))


def found(x: Given, dtype: torch.dtype, scale: Tensor | float, window: int, chunk: int = 30) -> Found:
    """Chunks of ``chunk`` rows, a multiple of the experts; the gradient takes the logits' place where it can."""
    table = torch.stack([o.detach() for o in x.call.operands], 1).view(torch.int64)
    rows = PlifRows(x.call, Pieces(x.call, x.z.dtype, dtype, WIDTH), table, chunk, window)
    of_bias = torch.zeros(rows.groups, WIDTH)
    parts = []
    for at in range(0, len(x.z), chunk):
        z = x.z[at : at + chunk].clone()
        room = -(-len(z) // ALIGNMENT) * ALIGNMENT
        lse, log_p, share = torch.full((3, room), float("nan"))
        share[: len(z)] = x.share[at : at + chunk]
        targets = x.call.targets[at // EXPERTS : (at + chunk) // EXPERTS]
        rows.statistics(z, targets, lse, log_p)
        out = z if z.dtype == dtype else torch.empty(z.shape, dtype=dtype)
        rows.gradient(z, out, lse, share, scale, of_bias)
        parts.append((lse[: len(z)], log_p[: len(z)], out.clone()))
    return Found(*(torch.cat(part) for part in zip(*parts, strict=True)), of_bias.sum(0))


def truth(x: Given, g: Plif) -> Found:
    """In float64, with the pieces that every float32 form finds."""
    slope, start = (o.detach().double() for o in g.operands())
    piece = pieces_of(x.meant, g)
    t = start[piece] + slope[piece] * (x.meant.double() - (piece * (2.0 * g.bound / slope.numel()) - g.bound))
    targets = x.call.targets.repeat_interleave(EXPERTS)
    lse = torch.logsumexp(t, 1)
    of_z = gradients(x.meant, g, x.share.double(), x.call.targets)[1]
    return Found(lse, t[torch.arange(len(t)), targets] - lse, of_z, of_z.sum(0))


@pytest.mark.parametrize(("types", "biased"), list(zip(TYPES, [True, True, False, True], strict=True)))
@pytest.mark.parametrize(
    ("knots", "bound", "spread"), [(301, 4.0, 1.0), (1000, 20.0, 15.0), (6, 1.0, 2.0), (20_000, 20.0, 0.5)]
)
def test_statistics_and_gradient(types: Any, biased: bool, knots: int, bound: float, spread: float) -> None:
    torch.manual_seed(knots)
    g = Plif(knots=knots, bound=bound)
    x = given(g, spread, types[0], biased)
    expected = truth(x, g)
    scale = 2.0**12 if types[1] is torch.float16 else 1.0
    # A place and a start are float32 numbers near the bound; the halves round the gradient.
    place = 4.0 * bound * 2.0**-23
    rounding = {torch.float32: 2.0**-20, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}[types[1]]
    for factor in (scale, torch.tensor(scale)):
        got = found(x, types[1], factor, 600)
        torch.testing.assert_close(got.lse.double(), expected.lse, rtol=1e-6, atol=place)
        torch.testing.assert_close(got.log_p.double(), expected.log_p, rtol=1e-6, atol=2.0 * place)
        assert (got.of_z[:, WORDS:] == 0.0).all()
        assert (got.of_bias[WORDS:] == 0.0).all()
        of_z = got.of_z[:, :WORDS].double() / scale
        torch.testing.assert_close(of_z, expected.of_z, rtol=rounding + 4.0 * place, atol=2.0**-24 / scale + 1e-7)
        torch.testing.assert_close(got.of_bias[:WORDS].double(), expected.of_bias, rtol=4.0 * place, atol=1e-5)


def same(a: Found, b: Found) -> bool:
    return torch.equal(a.lse, b.lse) and torch.equal(a.log_p, b.log_p) and torch.equal(a.of_z, b.of_z)


@pytest.mark.parametrize("window", [0, 2, 64, 999])
def test_the_window_changes_no_bit(window: int) -> None:
    """A piece is the same number from either memory: all from afar, from both, and, but for the last, all from near."""
    torch.manual_seed(0)
    g = Plif(knots=1000, bound=5.0)
    x = given(g, 2.0, torch.float32, True)
    a, b = found(x, torch.float32, 1.0, window), found(x, torch.float32, 1.0, 300)
    assert same(a, b)
    assert torch.equal(a.of_bias, b.of_bias)


def test_the_order_of_the_warps_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = given(Plif(knots=1000, bound=5.0), 2.0, torch.bfloat16, True)
    first = found(x, torch.bfloat16, 1.0, 300)
    monkeypatch.setenv("CUDA_ON_CPU_REVERSED", "1")
    other = found(x, torch.bfloat16, 1.0, 300)
    assert same(first, other)
    assert torch.equal(first.of_bias, other.of_bias)


@pytest.mark.parametrize("chunk", [3, 15, 72])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 32), (2, 64), (40, 64)])
def test_every_division_into_parts(monkeypatch: pytest.MonkeyPatch, blocks: int, threads: int, chunk: int) -> None:
    """More warps than steps, parts of one row and of several, more columns than warps, rows that are not there."""
    monkeypatch.setattr(shared, "limits", lambda device: (blocks, 8192))
    monkeypatch.setattr(shared, "THREADS", threads)
    torch.manual_seed(chunk)
    g = Plif(knots=500, bound=5.0)
    for dtype in (torch.float32, torch.float16):
        x = given(g, 1.0, dtype, True)
        expected, got = truth(x, g), found(x, dtype, 1.0, 400, chunk)
        torch.testing.assert_close(got.lse.double(), expected.lse, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(got.log_p.double(), expected.log_p, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(got.of_z[:, :WORDS].double(), expected.of_z, rtol=2e-3, atol=1e-7)
        torch.testing.assert_close(got.of_bias[:WORDS].double(), expected.of_bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("high", [60.0, 300.0, 1e30])
@pytest.mark.parametrize("column", [0, 5, 290])
def test_a_logit_far_above_the_others(high: float, column: int) -> None:
    """Sums are taken against the first columns' maximum; a later one may be beyond float32's range of them."""
    torch.manual_seed(3)
    g = Plif(knots=100, bound=4.0, slope_std=0.0)
    x = given(g, 1.0, torch.float32, False)
    x.z[7, column] = x.meant[7, column] = high
    expected, got = truth(x, g), found(x, torch.float32, 1.0, 64)
    torch.testing.assert_close(got.lse.double(), expected.lse, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(got.of_z[:, :WORDS].double(), expected.of_z, rtol=1e-4, atol=1e-6)


def test_logits_of_minus_infinity_are_words_without_probability() -> None:
    torch.manual_seed(4)
    g = Plif(knots=100, bound=4.0)
    x = given(g, 1.0, torch.float32, True)
    assert x.call.bias is not None
    x.z[:, :150] = x.meant[:, :150] = -float("inf")
    x.call.targets.fill_(200)
    expected, got = truth(x, g), found(x, torch.float32, 1.0, 64)
    torch.testing.assert_close(got.lse.double(), expected.lse, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(got.of_z[:, :WORDS].double(), expected.of_z, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("types", TYPES)
def test_a_logit_that_is_no_number_spoils_its_row_alone(value: float, types: Any) -> None:
    torch.manual_seed(5)
    g = Plif(knots=100, bound=4.0)
    x = given(g, 1.0, types[0], True)
    clean = found(x, types[1], 1.0, 64)
    x.z[4, 17] = value
    got = found(x, types[1], 1.0, 64)
    others = torch.arange(len(x.z)) != 4
    assert torch.isnan(got.lse[4])
    assert torch.isnan(got.log_p[4])
    assert torch.isnan(got.of_z[4, :WORDS]).all()
    assert (got.of_z[:, WORDS:] == 0.0).all()
    assert all(torch.equal(a[others], b[others]) for a, b in zip(got[:3], clean[:3], strict=True))
