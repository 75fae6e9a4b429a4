"""The ReLU-based and the sigmoid-based output function: what they are, where they are flat, and what that costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suite.models.heads.saturating import Relu, Sigmoid

LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=20)


@given(LOGITS)
def test_probabilities_are_proportional_to_the_function_itself(z: list[float]) -> None:
    logits = torch.tensor(z, dtype=torch.float64)
    for g, f in ((Relu(eps=1e-3), logits.clamp(min=0) + 1e-3), (Sigmoid(), 1 / (1 + torch.exp(-logits)))):
        torch.testing.assert_close(torch.softmax(g(logits), -1), f / f.sum(), rtol=1e-10, atol=1e-12)


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_neither_ever_falls(low: float, step: float) -> None:
    z = torch.tensor([low, low + step], dtype=torch.float64)
    for g in (Relu(), Sigmoid()):
        first, second = g(z).tolist()
        assert first <= second


def test_a_word_below_zero_gets_no_gradient_from_relu_and_one_from_the_sigmoid() -> None:
    for g, flat in ((Relu(), True), (Sigmoid(), False)):
        z = torch.tensor([-2.0, 1.0], dtype=torch.float64, requires_grad=True)
        torch.log_softmax(g(z), -1)[1].backward()
        assert z.grad is not None
        assert bool(z.grad[0] == 0) == flat
        assert z.grad[1] > 0


@pytest.mark.parametrize("g", [Relu(), Sigmoid()])
def test_extreme_logits_stay_finite_in_float32(g: Relu | Sigmoid) -> None:
    z = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], requires_grad=True)
    out = g(z)
    out.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(out).all()
    assert torch.isfinite(z.grad).all()
