"""The mathematics of the pointwise family: identities, monotonicity, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax
from suite.spec.components import create, names

# Flat on one side by definition.
FLAT = ("relu", "sigmoid")
LOGITS = st.lists(st.floats(-50, 50), min_size=2, max_size=20)


def small(name: str) -> Pointwise:
    """A registered pointwise function in float64, few knots so that gradients reach every one."""
    torch.manual_seed(0)
    options = {"plif": {"knots": 16, "bound": 4.0}, "monotonic-network": {"units": 5, "bound": 3.0}}.get(name, {})
    made: Pointwise = create("pointwise", {"name": name, **options})
    return made.double()


def softmax_of(g: Pointwise, z: torch.Tensor) -> torch.Tensor:
    return torch.softmax(g(z), dim=-1)


@pytest.mark.parametrize("name", names("pointwise"))
@given(a=st.floats(-1e4, 1e4), step=st.floats(1e-3, 1e4))
@settings(max_examples=60, deadline=None)
def test_every_pointwise_function_increases(name: str, a: float, step: float) -> None:
    low, high = small(name)(torch.tensor([a, a + step], dtype=torch.float64)).tolist()
    assert low <= high if name in FLAT else low < high


@pytest.mark.parametrize("name", names("pointwise"))
def test_gradients_match_finite_differences(name: str) -> None:
    g = small(name)
    # Away from the knots, where a piecewise linear function has no derivative.
    z = torch.tensor([[-7.3, -3.1, -0.2], [0.4, 2.9, 6.6]], dtype=torch.float64, requires_grad=True)
    parameters = [p for p in g.parameters() if p.requires_grad]

    def run(z: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(g, dict(zip([n for n, _ in g.named_parameters()], values, strict=True)), (z,))

    assert torch.autograd.gradcheck(run, (z, *parameters))


@given(z=LOGITS)
@settings(max_examples=100, deadline=None)
def test_sigsoftmax_equals_its_three_definitions(z: list[float]) -> None:
    logits = torch.tensor(z, dtype=torch.float64)
    direct = softmax_of(Sigsoftmax(), logits)
    as_gss = softmax_of(GeneralizedSigsoftmax(c=0.0, k=2.0), logits)
    # softplus(z) = log(1 + exp z), written out: torch's own switches to z above a threshold
    softplus = torch.logaddexp(logits, torch.zeros_like(logits))
    as_softmax = torch.softmax(2 * logits - softplus, dim=-1)
    product = torch.exp(logits - logits.max()) * torch.sigmoid(logits)
    torch.testing.assert_close(direct, as_gss, rtol=0, atol=1e-12)
    torch.testing.assert_close(direct, as_softmax, rtol=0, atol=1e-12)
    torch.testing.assert_close(direct, product / product.sum(), rtol=1e-12, atol=1e-12)


@given(z=LOGITS, c=st.floats(-3, 3), k=st.floats(0.5, 4))
@settings(max_examples=100, deadline=None)
def test_gss_is_the_published_formula(z: list[float], c: float, k: float) -> None:
    logits = torch.tensor(z, dtype=torch.float64)
    softplus = torch.logaddexp(logits - c, torch.zeros_like(logits))
    published = k * (logits - c) + c - (k - 1) * softplus
    torch.testing.assert_close(GeneralizedSigsoftmax(c=c, k=k)(logits), published, rtol=1e-12, atol=1e-10)


def test_gss_with_k_1_is_the_softmax() -> None:
    z = torch.randn(4, 7, dtype=torch.float64)
    torch.testing.assert_close(GeneralizedSigsoftmax(c=1.5, k=1.0)(z), Identity()(z), rtol=0, atol=0)


@given(z=st.lists(st.floats(-100, 100), min_size=2, max_size=20))
@settings(max_examples=60, deadline=None)
def test_plif_with_unit_slopes_equals_the_softmax(z: list[float]) -> None:
    logits = torch.tensor(z, dtype=torch.float64)
    flat = Plif(knots=64, bound=20.0, slope_std=0.0).double()
    with torch.no_grad():
        flat.raw_slopes.fill_(math.log(math.e - 1))  # float64's own, not float32's rounded one
    torch.testing.assert_close(softmax_of(flat, logits), torch.softmax(logits, -1), rtol=0, atol=1e-12)


def test_plif_starts_as_a_line_of_slope_1_107() -> None:
    torch.manual_seed(0)
    slope = Plif(knots=100_000).operands()[0].detach()
    # The standard deviation of one slope is 0.63.
    assert abs(float(slope.mean()) - 1.1068) < 4 * 0.63 / math.sqrt(100_000)
    assert abs(float(slope.median()) - 1) < 0.01


def test_plif_with_equal_slopes_is_a_softmax_of_scaled_logits() -> None:
    g = Plif(knots=50, bound=5.0, slope_std=0.0).double()
    with torch.no_grad():
        g.raw_slopes.fill_(math.log(math.expm1(2.5)))
    z = torch.randn(3, 9, dtype=torch.float64) * 4
    torch.testing.assert_close(softmax_of(g, z), torch.softmax(2.5 * z, -1), rtol=0, atol=1e-12)


def test_plif_is_continuous_at_its_knots_and_zero_at_the_left_end() -> None:
    torch.manual_seed(1)
    g = Plif(knots=40, bound=2.0).double()
    knots = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64)
    torch.testing.assert_close(g(knots - 1e-9), g(knots + 1e-9), rtol=0, atol=1e-7)
    assert abs(g(torch.tensor(-2.0, dtype=torch.float64)).item()) < 1e-12


def test_plif_knot_gradients_agree_between_the_two_summation_orders() -> None:
    torch.manual_seed(2)
    z = torch.randn(50, 300, dtype=torch.float64) * 8
    upstream = torch.randn_like(z)
    gradients = []
    for deterministic in (False, True):
        torch.manual_seed(3)
        g = Plif(knots=1000, deterministic=deterministic).double()
        g(z).backward(upstream)
        gradients.append(g.raw_slopes.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


def test_plif_gradient_is_that_of_plain_indexing() -> None:
    torch.manual_seed(4)
    g = Plif(knots=12, bound=3.0).double()
    z = torch.randn(6, 8, dtype=torch.float64) * 3
    upstream = torch.randn_like(z)
    g(z).backward(upstream)
    slope = functional.softplus(g.raw_slopes.detach()).requires_grad_()
    delta = 6.0 / 12
    piece = ((z + 3.0) / delta).floor().clamp(0, 11).long()
    start = (slope.cumsum(0) - slope) * delta
    plain = start[piece] + slope[piece] * (z - (piece.double() * delta - 3.0))
    torch.testing.assert_close(g(z), plain)
    (by_slope,) = torch.autograd.grad(plain, slope, upstream)
    torch.testing.assert_close(g.raw_slopes.grad, by_slope * torch.sigmoid(g.raw_slopes.detach()))


def test_frozen_plif_keeps_its_random_slopes_out_of_training() -> None:
    g = Plif(knots=10, frozen=True)
    assert not g.raw_slopes.requires_grad
    assert g.raw_slopes.std() > 0


def test_monotonic_network_is_the_written_sum() -> None:
    torch.manual_seed(5)
    g = MonotonicNetwork(units=7).double()
    z = torch.linspace(-30, 30, 50, dtype=torch.float64)
    a, u, v = (functional.softplus(p) for p in (g.raw_linear, g.raw_inner, g.raw_outer))
    written = a * z + (v * torch.tanh(u * z[:, None] + g.bias)).sum(-1)
    torch.testing.assert_close(g(z), written)
