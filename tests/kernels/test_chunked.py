"""The one-pass loss against the reference that materialises everything, and against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from suite.kernels import chunked, distributions, reference, twice
from suite.kernels.projection import Projection, expert_contexts
from suite.models.heads.pointwise import Identity, Pointwise
from suite.spec.components import create, names
from suite.spec.recipe import Arithmetic

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


@pytest.mark.parametrize("g", names("pointwise"))
@pytest.mark.parametrize("projected", [True, False], ids=["projection", "contexts"])
def test_without_gradients_none_is_made(g: str, projected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, latent, log_prior, weight, bias, _ = arguments(6, 3, 4, 20, g)
    contexts = torch.randn(6, 5, dtype=torch.float64) if projected else latent
    leaves = torch.randn(12, 5).double().requires_grad_(), torch.randn(12).double().requires_grad_()
    projection = Projection(*leaves, 3, None, 1.0) if projected else None
    of_logits = []
    run = chunked.TorchRows.run

    def watched(self: chunked.TorchRows, *given: Any) -> torch.Tensor | None:
        of_logits.append(run(self, *given))
        return of_logits[-1]

    def loss() -> tuple[torch.Tensor, torch.Tensor]:
        targets = torch.arange(6)
        return chunked.mixture_nll(contexts, log_prior, weight, bias, targets, made, projection=projection)

    monkeypatch.setattr(chunked.TorchRows, "run", watched)
    differentiable, expected = loss()
    assert differentiable.requires_grad
    assert all(made is not None for made in of_logits)
    of_logits.clear()
    with torch.no_grad():
        mean, nll = loss()
    assert of_logits
    assert all(made is None for made in of_logits)
    assert not mean.requires_grad
    assert torch.equal(nll, expected)
    torch.testing.assert_close(mean, nll.mean())


def test_a_second_backward_is_refused_in_words() -> None:
    g, contexts, log_prior, weight, bias, _ = arguments(6, 3, 4, 20, "identity")
    loss, _ = chunked.mixture_nll(contexts, log_prior, weight, bias, torch.arange(6), g)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out already; compute the loss again"):
        loss.backward()


@pytest.mark.parametrize("g", names("pointwise"))
@pytest.mark.parametrize("masked", [True, False], ids=["dropout", "no-dropout"])
@pytest.mark.parametrize("chunk_bytes", [1, 3 * 4 * 33 * 8, 10**9])
def test_the_projection_in_the_loop_is_that_before_it(g: str, masked: bool, chunk_bytes: int) -> None:
    made, _, prior, weight, bias, share = arguments(8, 4, 5, 33, g)
    contexts, project, offset = (torch.randn(*shape).double().requires_grad_() for shape in ((8, 6), (20, 6), (20,)))
    # two streams along time, as in a [T, B, H] batch
    mask = torch.bernoulli(torch.full((2, 20), 0.6, dtype=torch.float64)) if masked else None
    projection = Projection(project, offset, 4, mask, 1 / 0.6 if masked else 1.0)
    targets = torch.randint(33, (8,))
    leaves = [contexts, project, offset, prior, weight, bias, *made.parameters()]
    latent = expert_contexts(contexts, projection, "float32")
    slow = (share.detach() * reference.mixture_nll(latent, prior, weight, bias, targets, made)).sum()
    fast, _ = chunked.mixture_nll(
        contexts, prior, weight, bias, targets, made, share.detach(), 0.0, chunk_bytes, projection=projection
    )
    assert_same([slow, *torch.autograd.grad(slow, leaves)], [fast, *torch.autograd.grad(fast, leaves)])


def test_dropout_of_the_experts_is_shared_along_time() -> None:
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    projection = Projection(torch.zeros(2, 3), torch.ones(2), 1, mask, 2.0)
    found = expert_contexts(torch.randn(6, 3), projection, "float32").squeeze(1)
    torch.testing.assert_close(found, 2.0 * math.tanh(1.0) * mask.repeat(3, 1))


@pytest.mark.parametrize("arithmetic", ["float16", "bfloat16"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "mean"])
def test_half_precision_is_no_worse_than_the_reference_in_it(arithmetic: Arithmetic, weighted: bool) -> None:
    made, *wide = arguments(40, 4, 16, 500, "sigsoftmax", scale=0.5)
    targets = torch.randint(500, (40,))
    # weights so small that an unscaled float16 gradient would vanish
    share = torch.rand(40).double() * 1e-5 if weighted else torch.full((40,), 1 / 40.0).double()

    def gradients(kind: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        contexts, prior, weight, bias = tensors
        if kind == "one pass":
            own = share.float() if weighted else None
            loss, _ = chunked.mixture_nll(contexts, prior, weight, bias, targets, made, own, 0.0, 20_000, arithmetic)
        else:
            how: Arithmetic = "float32" if kind == "truth" else arithmetic
            nll = reference.mixture_nll(contexts, prior, weight, bias, targets, made, 0.0, how)
            loss = (share.to(nll.dtype) * nll).sum()
        return [loss, *torch.autograd.grad(loss, tensors)]

    narrow = [t.detach().float().requires_grad_() for t in wide[:4] if t is not None]
    truth = gradients("truth", [t for t in wide[:4] if t is not None])
    own, fast = gradients("reference", narrow), gradients("one pass", narrow)
    for true, slow, quick in zip(truth, own, fast, strict=True):
        size = true.norm()
        assert 0 < (quick - true).norm() / size <= 1.5 * (slow - true).norm() / size + 1e-6


def test_the_rounding_is_that_of_the_operands() -> None:
    made, contexts, _, weight, _, _ = arguments(5, 1, 4, 9, "identity", bias=False)
    narrow, words, targets = contexts.detach().float(), weight.detach().float(), torch.arange(5)
    rounded = reference.mixture_nll(narrow.half().float(), None, words.half().float(), None, targets, made)
    _, found = chunked.mixture_nll(narrow, None, words, None, targets, made, arithmetic="float16")
    torch.testing.assert_close(found, rounded, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        reference.mixture_nll(narrow, None, words, None, targets, made, arithmetic="float16"), rounded
    )


@pytest.mark.parametrize("g", names("pointwise"))
def test_a_gradient_can_be_differentiated_again(g: str) -> None:
    """Hessian-vector products of the one-pass loss are those of the reference, and its chunks are checkpointed."""
    made, contexts, prior, weight, bias, share = arguments(5, 2, 4, 11, g, scale=0.7)
    targets = torch.randint(11, (5,))
    leaves = [contexts, prior, weight, bias, *(p for p in made.parameters() if p.requires_grad)]

    def product(loss: torch.Tensor) -> list[torch.Tensor]:
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        size = sum((f * torch.sin(torch.arange(f.numel()).double()).view_as(f)).sum() for f in first)
        return [loss, *first, *torch.autograd.grad(size, leaves, allow_unused=True, materialize_grads=True)]

    whole = product((share.detach() * reference.mixture_nll(contexts, prior, weight, bias, targets, made, 1e-2)).sum())
    fast, _ = chunked.mixture_nll(contexts, prior, weight, bias, targets, made, share.detach(), 1e-2, 2 * 2 * 11 * 8)
    assert_same(whole, product(fast), 1e-11)


def test_why_the_slower_form_is_taken_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    twice.say_once.cache_clear()
    g, contexts, log_prior, weight, bias, _ = arguments(6, 3, 4, 20, "identity")
    for _ in range(2):
        loss, _ = chunked.mixture_nll(contexts, log_prior, weight, bias, torch.arange(6), g)
        torch.autograd.grad(loss, weight, create_graph=True)
    assert [record.getMessage() for record in caplog.records if record.name == "suite"] == [
        "the head's loss falls back to its checkpointed reference form: its gradient is to be differentiated again "
        "(create_graph)"
    ]


def test_single_losses_in_checkpointed_chunks() -> None:
    g, contexts, log_prior, weight, bias, share = arguments(7, 3, 4, 20, "sigsoftmax")
    leaves, targets = [contexts, log_prior, weight, bias], torch.randint(20, (7,))
    slow = reference.mixture_nll(contexts, log_prior, weight, bias, targets, g)
    fast = twice.mixture_nll(contexts, log_prior, weight, bias, targets, g, chunk_bytes=2 * 3 * 20 * 8)
    by_both = [torch.autograd.grad((share.detach() * nll.square()).sum(), leaves) for nll in (slow, fast)]
    assert_same([slow, *by_both[0]], [fast, *by_both[1]])


def test_distributions_in_chunks_and_in_the_dtype_asked_for() -> None:
    g, contexts, log_prior, weight, bias, _ = arguments(7, 3, 4, 20, "gss")
    whole = reference.mixture_log_probs(contexts, log_prior, weight, bias, g)
    with torch.no_grad():
        parts = distributions.mixture_log_probs(contexts, log_prior, weight, bias, g, chunk_bytes=2 * 3 * 20 * 8)
        narrow = [t.float() for t in (contexts, log_prior, weight, bias)]
        wide = distributions.mixture_log_probs(*narrow, g, dtype=torch.float64)
    assert_same([whole], [parts])
    assert wide.dtype is torch.float64
    assert_same([reference.mixture_log_probs(*(t.double() for t in narrow), g)], [wide])


def test_a_user_function_needs_only_its_forward() -> None:
    class Cubic(Pointwise):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + self.a.square() * z**3

    _, *tensors = arguments(7, 2, 5, 33, "identity")
    assert_same(*both((Cubic(), *tensors), torch.randint(33, (7,)), 0.0, 2000))  # type: ignore[arg-type]


@pytest.mark.parametrize("said", [1.0, 256.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_factor_said_ahead_changes_no_gradient(said: float, weighted: bool) -> None:
    torch.manual_seed(3)
    contexts, weight, bias = torch.randn(6, 2, 4), torch.randn(9, 4), torch.randn(9)
    prior, share = torch.log_softmax(torch.randn(6, 2), -1), torch.rand(6)
    leaves = [t.double().requires_grad_() for t in (contexts, prior, weight, bias, share)]
    targets = torch.randint(9, (6,))

    def gradients(factor: float) -> tuple[torch.Tensor, ...]:
        row_weight = leaves[4] if weighted else None
        loss, _ = chunked.mixture_nll(*leaves[:4], targets, Identity(), row_weight, chunk_bytes=1, factor=factor)
        return torch.autograd.grad(loss * 256.0, leaves[: 5 if weighted else 4])

    torch.testing.assert_close(gradients(said), gradients(7.0), rtol=1e-12, atol=0.0)
