"""The one-pass loss against the reference that materialises everything, and against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from suite.kernels import chunked, reference
from suite.models.heads.pointwise import Pointwise
from suite.spec.components import create, names

SMALL: dict[str, dict[str, Any]] = {"plif": {"knots": 64}, "monotonic-network": {"units": 5}}
Arguments = tuple[Pointwise, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None, torch.Tensor]


def arguments(
    tokens: int, experts: int, size: int, words: int, g: str, bias: bool = True, scale: float = 1.0, seed: int = 0
) -> Arguments:
    torch.manual_seed(seed)
    made: Pointwise = create("pointwise", {"name": g, **SMALL.get(g, {})}).double()

    def leaf(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * scale).requires_grad_()

    log_prior = torch.log_softmax(leaf(tokens, experts).detach(), -1).requires_grad_() if experts > 1 else None
    return made, leaf(tokens, experts, size), log_prior, leaf(words, size), leaf(words) if bias else None, leaf(tokens)


def both(given: Arguments, targets: torch.Tensor, eps: float, chunk_bytes: int) -> tuple[list[torch.Tensor], ...]:
    """Loss, nats and every gradient, by the reference and in one pass."""
    g, contexts, log_prior, weight, bias, row_weight = given
    leaves = [t for t in (contexts, log_prior, weight, bias, row_weight) if t is not None]
    leaves += [p for p in g.parameters() if p.requires_grad]
    nll = reference.mixture_nll(contexts, log_prior, weight, bias, targets, g, eps)
    loss = (row_weight * nll).sum()
    whole = [loss, nll, *torch.autograd.grad(1.7 * loss, leaves)]
    loss, nll = chunked.mixture_nll(contexts, log_prior, weight, bias, targets, g, row_weight, eps, chunk_bytes)
    return whole, [loss, nll, *torch.autograd.grad(1.7 * loss, leaves)]


def assert_same(whole: list[torch.Tensor], fast: list[torch.Tensor], tolerance: float = 1e-12) -> None:
    for expected, found in zip(whole, fast, strict=True):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("g", names("pointwise"))
@pytest.mark.parametrize("experts", [1, 2, 15])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-2])
def test_every_gradient_agrees_in_float64(g: str, experts: int, bias: bool, eps: float) -> None:
    given = arguments(7, experts, 5, 33, g, bias)
    targets = torch.randint(33, (7,))
    # one token a chunk though it exceeds the budget; a short last chunk; everything in one
    for chunk_bytes in (1, 3 * experts * 33 * 8, 10**9):
        assert_same(*both(given, targets, eps, chunk_bytes))


@pytest.mark.parametrize("g", ["identity", "sigsoftmax", "plif"])
@pytest.mark.parametrize(("tokens", "words"), [(1, 33_278), (5, 257), (1, 2)])
def test_odd_shapes(g: str, tokens: int, words: int) -> None:
    given = arguments(tokens, 3, 4, words, g)
    assert_same(*both(given, torch.randint(words, (tokens,)), 0.0, 2 * 3 * words * 8))


@given(
    tokens=st.integers(1, 9),
    experts=st.integers(1, 5),
    size=st.integers(1, 6),
    words=st.integers(1, 40),
    scale=st.sampled_from([1.0, 30.0, 100.0]),
    g=st.sampled_from(["identity", "sigsoftmax", "gss"]),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_extreme_logits(
    tokens: int, experts: int, size: int, words: int, scale: float, g: str, seed: int
) -> None:
    given = arguments(tokens, experts, size, words, g, scale=scale, seed=seed)
    whole, fast = both(given, torch.randint(words, (tokens,)), 0.0, 500)
    assert all(torch.isfinite(t).all() for t in fast)
    assert_same(whole, fast, 1e-11)


@pytest.mark.parametrize("g", ["identity", "sigsoftmax", "plif"])
def test_float32_is_no_worse_than_the_reference_in_float32(g: str) -> None:
    """Judged by the reference's own distance from the float64 truth (as apple/ml-cross-entropy does)."""
    truth_of = arguments(40, 4, 16, 500, g)
    targets = torch.randint(500, (40,))
    truth, _ = both(truth_of, targets, 0.0, 10**9)
    made, *tensors = truth_of
    single = (made.float(), *(None if t is None else t.detach().float().requires_grad_() for t in tensors))
    whole, fast = both(single, targets, 0.0, 20_000)  # type: ignore[arg-type]
    for true, slow, quick in zip(truth, whole, fast, strict=True):
        size = true.norm()
        assert (quick - true).norm() / size <= 2 * (slow - true).norm() / size + 1e-6


def test_one_expert_equals_torchs_linear_cross_entropy() -> None:
    oracle = getattr(functional, "linear_cross_entropy", None)
    if oracle is None:
        pytest.skip("this torch has no linear_cross_entropy")
    g, contexts, _, weight, bias, _ = arguments(9, 1, 6, 50, "identity")
    targets = torch.randint(50, (9,))
    theirs = oracle(contexts.squeeze(1), weight, targets, linear_bias=bias)
    ours, _ = chunked.mixture_nll(contexts, None, weight, bias, targets, g)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(ours, weight), torch.autograd.grad(theirs, weight), rtol=1e-11, atol=1e-12
    )


def test_the_largest_tensor_does_not_grow_with_tokens_times_experts() -> None:
    """The buffer is the only tensor of a chunk's logits: watched by recording every allocation's size."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for item in out if isinstance(out, tuple | list) else [out]:
                if isinstance(item, torch.Tensor):
                    sizes.append(item.untyped_storage().nbytes())
            return out

    largest = {}
    for tokens in (8, 64):
        g, contexts, log_prior, weight, bias, _ = arguments(tokens, 10, 3, 1000, "identity")
        sizes.clear()
        with Watch():
            chunked.mixture_nll(contexts, log_prior, weight, bias, torch.zeros(tokens).long(), g, chunk_bytes=320_000)
        largest[tokens] = max(sizes)
    assert largest[64] == largest[8] <= 320_000


def test_without_gradients_nothing_is_kept() -> None:
    g, contexts, log_prior, weight, bias, _ = arguments(6, 3, 4, 20, "identity")
    with torch.no_grad():
        loss, nll = chunked.mixture_nll(contexts, log_prior, weight, bias, torch.arange(6), g)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, nll.mean())


def test_a_second_backward_is_refused_in_words() -> None:
    g, contexts, log_prior, weight, bias, _ = arguments(6, 3, 4, 20, "identity")
    loss, _ = chunked.mixture_nll(contexts, log_prior, weight, bias, torch.arange(6), g)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out already; compute the loss again"):
        loss.backward()


def test_a_user_function_needs_only_its_forward() -> None:
    class Cubic(Pointwise):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + self.a.square() * z**3

    _, *tensors = arguments(7, 2, 5, 33, "identity")
    assert_same(*both((Cubic(), *tensors), torch.randint(33, (7,)), 0.0, 2000))  # type: ignore[arg-type]
