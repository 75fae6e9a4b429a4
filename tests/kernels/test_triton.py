"""The Triton row kernels and their driver under Triton's interpreter on the CPU, against the reference."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install triton to run its interpreter on the CPU")

from suite.kernels import fused, projection_triton, reference
from suite.kernels.projection import Projection, expert_contexts
from suite.kernels.tuning import Tuning
from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax

# Small tiles, so that rows and columns take several and the last ones are short.
SMALL = Tuning(statistics_tile=256, gradient_tile=256, rows=2, warps=1, programs=4)


def function(name: str) -> Pointwise:
    torch.manual_seed(0)
    made: dict[str, Pointwise] = {
        "identity": Identity(),
        "sigsoftmax": Sigsoftmax(),
        "gss": GeneralizedSigsoftmax(c=-1.5, k=2.5),
        "plif": Plif(knots=64, bound=4.0),
        "plif-deterministic": Plif(knots=64, bound=4.0, deterministic=True),
        "network": MonotonicNetwork(units=3, bound=4.0),
    }
    return made[name]


FUNCTIONS = ["identity", "sigsoftmax", "gss", "plif", "plif-deterministic", "network"]


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).requires_grad_()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("experts", "words", "bias", "eps", "chunk_bytes"),
    [(1, 33, True, 0.0, 1), (3, 33, False, 1e-2, 10**8), (15, 140, True, 1e-2, 10**4), (2, 400, True, 0.0, 4000)],
)
def test_every_gradient(name: str, experts: int, words: int, bias: bool, eps: float, chunk_bytes: int) -> None:
    g, tokens, size = function(name), 3, 5
    contexts, weight = leaf(tokens, experts, size), leaf(words, size)
    log_prior = torch.log_softmax(torch.randn(tokens, experts), -1).requires_grad_() if experts > 1 else None
    offset = leaf(words) if bias else None
    targets, share = torch.randint(words, (tokens,)), torch.rand(tokens).requires_grad_()
    leaves = [t for t in (contexts, log_prior, weight, offset, share) if t is not None] + list(g.parameters())
    nll = reference.mixture_nll(contexts, log_prior, weight, offset, targets, g, eps)
    slow = (share * nll).sum()
    fast, found = fused.mixture_nll(
        contexts, log_prior, weight, offset, targets, g, share, eps, chunk_bytes, "float32", None, SMALL
    )
    torch.testing.assert_close(found, nll.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(1.7 * slow, leaves), torch.autograd.grad(1.7 * fast, leaves), strict=True):
        torch.testing.assert_close(b, a, rtol=2e-4, atol=2e-5)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("name", ["identity", "sigsoftmax", "network"])
def test_extreme_logits_stay_finite(name: str) -> None:
    g = function(name)
    contexts, weight = torch.eye(4).view(4, 1, 4).requires_grad_(), torch.randn(40, 4) * 1e4
    targets = torch.randint(40, (4,))
    slow = reference.mixture_nll(contexts, None, weight, None, targets, g).mean()
    fast, _ = fused.mixture_nll(contexts, None, weight, None, targets, g)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(torch.autograd.grad(fast, contexts)[0]).all()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("name", ["identity", "sigsoftmax"])
@pytest.mark.parametrize("high", [60.0, 300.0])
def test_a_logit_far_above_the_first_columns(name: str, high: float) -> None:
    """Sums are taken against the first columns' maximum; a later one may be beyond float32's range of them."""
    g, words = function(name), 2100
    weight = torch.zeros(words, 3)
    weight[2000, 0] = high
    contexts = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]]).requires_grad_()
    targets = torch.tensor([2000, 5, 7])
    slow = reference.mixture_nll(contexts, None, weight, None, targets, g).mean()
    fast, _ = fused.mixture_nll(contexts, None, weight, None, targets, g)
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-5)
    for a, b in zip(torch.autograd.grad(slow, contexts), torch.autograd.grad(fast, contexts), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:All-NaN slice")
def test_a_logit_that_is_no_number_comes_out_as_one() -> None:
    for name in FUNCTIONS:
        contexts = torch.full((2, 1, 3), float("nan"))
        fast, _ = fused.mixture_nll(contexts, None, torch.randn(9, 3), None, torch.zeros(2).long(), function(name))
        assert torch.isnan(fast), name


def test_one_program_may_serve_the_mean() -> None:
    """The default tiles, weights of the mean, and no gradient at all."""
    g, targets = function("sigsoftmax"), torch.randint(50, (7,))
    contexts, weight, bias = torch.randn(7, 2, 4), torch.randn(50, 4), torch.randn(50)
    prior = torch.log_softmax(torch.randn(7, 2), -1)
    loss, nll = fused.mixture_nll(contexts, prior, weight, bias, targets, g)
    expected = reference.mixture_nll(contexts, prior, weight, bias, targets, g)
    torch.testing.assert_close(nll, expected)
    torch.testing.assert_close(loss, expected.mean())


def test_frozen_slopes_have_no_sums() -> None:
    g = Plif(knots=32, bound=4.0, frozen=True)
    weight, targets = leaf(20, 3), torch.randint(20, (5,))
    contexts = torch.randn(5, 1, 3)
    fast, _ = fused.mixture_nll(contexts, None, weight, None, targets, g)
    slow = reference.mixture_nll(contexts, None, weight, None, targets, g).mean()
    torch.testing.assert_close(torch.autograd.grad(fast, weight), torch.autograd.grad(slow, weight))


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16"])
def test_with_the_projection_in_the_loop(arithmetic: str) -> None:
    torch.manual_seed(2)
    contexts, weight, project, project_bias = leaf(6, 4), leaf(30, 5), leaf(15, 4), leaf(15)
    prior = torch.log_softmax(torch.randn(6, 3), -1)
    mask = torch.bernoulli(torch.full((2, 15), 0.7))
    projection = Projection(project, project_bias, 3, mask, 1 / 0.7)
    targets = torch.randint(30, (6,))
    leaves = [contexts, weight, project, project_bias]
    latent = expert_contexts(contexts, projection, "float32")
    slow = reference.mixture_nll(latent, prior, weight, None, targets, Identity()).mean()
    fast, _ = fused.mixture_nll(
        contexts,
        prior,
        weight,
        None,
        targets,
        Identity(),
        None,
        0.0,
        1000,
        arithmetic,
        projection,
        SMALL,  # type: ignore[arg-type]
    )
    tolerance = 1e-5 if arithmetic == "float32" else 3e-2
    for a, b in zip(torch.autograd.grad(slow, leaves), torch.autograd.grad(fast, leaves), strict=True):
        assert (a - b).norm() <= tolerance * a.norm()


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("rows", "streams", "width"), [(10, 5, 21), (66, 3, 300), (33, None, 80)])
def test_expert_contexts(arithmetic: str, rows: int, streams: int | None, width: int) -> None:
    torch.manual_seed(4)
    contexts, weight, bias = leaf(rows, 9), leaf(width, 9), leaf(width)
    mask = None if streams is None else torch.bernoulli(torch.full((streams, width), 0.7))
    scale = 1.0 if mask is None else 1 / 0.7
    slow = expert_contexts(contexts, Projection(weight, bias, 1, mask, scale), arithmetic).view(rows, width)
    fast = projection_triton.expert_contexts(contexts, weight, bias, mask, scale, arithmetic)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    above, leaves = torch.randn(rows, width), [contexts, weight, bias]
    # Both round a gradient to the operands' precision, one before and one after scaling.
    close = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[arithmetic]
    for a, b in zip(torch.autograd.grad(slow, leaves, above), torch.autograd.grad(fast, leaves, above), strict=True):
        assert (b - a).norm() <= close * a.norm()


def test_expert_contexts_can_be_differentiated_twice() -> None:
    torch.manual_seed(5)
    leaves = [leaf(6, 4), leaf(10, 4), leaf(10)]
    mask = torch.bernoulli(torch.full((3, 10), 0.7))

    def curvature(fast: bool) -> tuple[torch.Tensor, ...]:
        contexts, weight, bias = leaves
        if fast:
            made = projection_triton.expert_contexts(contexts, weight, bias, mask, 1 / 0.7, "float32")
        else:
            made = expert_contexts(contexts, Projection(weight, bias, 1, mask, 1 / 0.7), "float32")
        first = torch.autograd.grad(made.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for a, b in zip(curvature(False), curvature(True), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


# Pieces are counted in shared memory whatever the size of the call.
COUNTED = SMALL._replace(window=40, cuda_from=0)


@pytest.mark.parametrize(("deterministic", "looked_up"), [(False, 0), (False, 24), (True, 100)])
@pytest.mark.parametrize(("experts", "words", "bias", "chunk_bytes"), [(1, 33, True, 1), (3, 140, False, 10**4)])
def test_knots_counted_in_shared_memory(
    knots_on_cpu: list[str],
    deterministic: bool,
    looked_up: int,
    experts: int,
    words: int,
    bias: bool,
    chunk_bytes: int,
) -> None:
    torch.manual_seed(6)
    g, tokens, size = Plif(knots=64, bound=4.0, deterministic=deterministic), 5, 5
    contexts, weight = leaf(tokens, experts, size), leaf(words, size)
    prior = torch.log_softmax(torch.randn(tokens, experts), -1).requires_grad_() if experts > 1 else None
    offset = leaf(words) if bias else None
    targets, share = torch.randint(words, (tokens,)), torch.rand(tokens).requires_grad_()
    leaves = [t for t in (contexts, prior, weight, offset, share) if t is not None] + list(g.parameters())
    for row_weight in (share, None):
        nll = reference.mixture_nll(contexts, prior, weight, offset, targets, g)
        slow = nll.mean() if row_weight is None else (row_weight * nll).sum()
        common = (contexts, prior, weight, offset, targets, g, row_weight, 0.0, chunk_bytes, "float32", None)
        fast, _ = fused.mixture_nll(*common, COUNTED._replace(looked_up=looked_up), 3.0)  # type: ignore[arg-type]
        some = leaves if row_weight is not None else [t for t in leaves if t is not share]
        for a, b in zip(torch.autograd.grad(3.0 * slow, some), torch.autograd.grad(3.0 * fast, some), strict=True):
            torch.testing.assert_close(b, a, rtol=2e-4, atol=2e-5)
    assert "collect" in knots_on_cpu
    assert ("gradient" in knots_on_cpu) == (looked_up > 0)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
def test_frozen_slopes_are_looked_up_in_shared_memory(knots_on_cpu: list[str], arithmetic: str) -> None:
    """Their gradient takes the logits' place, and without a gradient there is the loss alone."""
    torch.manual_seed(7)
    g, targets = Plif(knots=64, bound=4.0, frozen=True), torch.randint(140, (5,))
    leaves = [leaf(5, 3, 5), leaf(140, 5), leaf(140)]
    contexts, weight, bias = leaves
    prior = torch.log_softmax(torch.randn(5, 3), -1)

    def loss(tuning: Tuning) -> torch.Tensor:
        return fused.mixture_nll(
            contexts,
            prior,
            weight,
            bias,
            targets,
            g,
            None,
            0.0,
            2000,
            arithmetic,
            None,
            tuning,  # type: ignore[arg-type]
        )[0]

    slow, fast = loss(COUNTED._replace(looked_up=0)), loss(COUNTED)
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-6)
    tolerance = 1e-5 if arithmetic == "float32" else 1e-2
    for a, b in zip(torch.autograd.grad(slow, leaves), torch.autograd.grad(fast, leaves), strict=True):
        assert (a - b).norm() <= tolerance * a.norm()
    with torch.no_grad():
        torch.testing.assert_close(loss(COUNTED), slow, rtol=1e-6, atol=1e-6)
    assert "statistics" in knots_on_cpu
    assert "prepare" not in knots_on_cpu


@pytest.mark.usefixtures("knots_on_cpu")
def test_few_logits_and_frozen_slopes_are_not_counted() -> None:
    device = torch.device("cpu")
    rows = fused.TritonRows
    assert rows.counts_knots(Plif(knots=64), rows.tuning.cuda_from, device)
    assert not rows.counts_knots(Plif(knots=64), rows.tuning.cuda_from - 1, device)
    for other in (Plif(knots=64, frozen=True), Plif(knots=5), Identity()):
        assert not rows.counts_knots(other, rows.tuning.cuda_from, device)
