"""Heads: distributions, identities between them, parameters; each registered head and function passes the contract."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.errors import InputError
from suite.models.heads.head import Head, MixtureOfContexts, MixtureOfSoftmaxes, Softmax
from suite.spec.components import create, names

H, V = 6, 17
COMBINATIONS = [(head, g) for head in names("head") for g in names("pointwise")]


def make(head: str, pointwise: str = "identity", *, context: int = H, tied: Any = None, **options: Any) -> Head:
    torch.manual_seed(0)
    if head != "softmax":
        options = {"experts": 3, "dimension": 5, "latent_dropout": 0.0, **options}
    if pointwise == "plif":
        options["pointwise"] = {"name": "plif", "knots": 32}
    else:
        options["pointwise"] = pointwise
    built: Head = create("head", {"name": head, **options}, context, V, tied)
    return built.double().eval()


@pytest.mark.parametrize(("head", "pointwise"), COMBINATIONS)
def test_probabilities_sum_to_one(head: str, pointwise: str) -> None:
    contexts = torch.randn(11, H, dtype=torch.float64) * 3
    total = make(head, pointwise).log_probs(contexts).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("head", "pointwise"), COMBINATIONS)
@given(scale=st.sampled_from([1.0, 1e2, 1e4]), seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_extreme_logits_give_finite_normalised_probabilities(
    head: str, pointwise: str, scale: float, seed: int
) -> None:
    built = make(head, pointwise)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # The bias alone drives logits to +-scale, whatever bounds the contexts.
        built.bias.copy_(torch.empty(V, dtype=torch.float64).uniform_(-scale, scale, generator=generator))
    contexts = torch.randn(4, H, dtype=torch.float64, generator=generator)
    log_p = built.log_probs(contexts)
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    nll = built.nll(contexts, torch.tensor([0, 1, 2, 3]))
    nll.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in built.parameters() if p.grad is not None)


@pytest.mark.parametrize(("head", "pointwise"), COMBINATIONS)
def test_nll_is_the_target_entry_of_log_probs(head: str, pointwise: str) -> None:
    built = make(head, pointwise)
    contexts = torch.randn(4, 3, H, dtype=torch.float64)
    targets = torch.randint(V, (4, 3))
    picked = -built.log_probs(contexts).gather(1, targets.view(-1, 1)).squeeze(1)
    torch.testing.assert_close(built.nll(contexts, targets), picked, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("head", "pointwise"), COMBINATIONS)
def test_gradients_match_finite_differences(head: str, pointwise: str) -> None:
    built = make(head, pointwise)
    contexts = torch.randn(3, H, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 5, 16])
    named = [(n, p) for n, p in built.named_parameters() if p.requires_grad]

    def run(contexts: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        new = {f"head.{name}": value for (name, _), value in zip(named, values, strict=True)}
        return torch.func.functional_call(_Nll(built), new, (contexts, targets))

    assert torch.autograd.gradcheck(run, (contexts, *(p for _, p in named)), eps=1e-7, atol=1e-5)


class _Nll(torch.nn.Module):
    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, contexts: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.head.nll(contexts, targets)


@pytest.mark.parametrize(("head", "pointwise"), COMBINATIONS)
def test_a_bias_may_start_at_the_frequencies_of_the_words(head: str, pointwise: str) -> None:
    built = make(head, pointwise, bias="unigram")
    assert built.starts_at_frequencies
    assert built.bias is not None
    assert not built.bias.any(), "it knows no frequencies yet"
    frequencies = torch.distributions.Dirichlet(torch.full((V,), 0.3, dtype=torch.float64)).sample()
    frequencies = (frequencies + 1e-3) / (frequencies + 1e-3).sum()
    built.start_at(frequencies)
    with torch.no_grad():
        if built.projection is not None and built.projection.bias is not None:
            built.projection.bias.zero_()  # contexts of zero for the experts too
        log_p = built.log_probs(torch.zeros(2, H, dtype=torch.float64))
    torch.testing.assert_close(log_p, frequencies.log().expand(2, V), rtol=0, atol=1e-5)
    assert built.bias.requires_grad
    assert not make(head, pointwise).starts_at_frequencies


def test_one_expert_is_the_softmax_of_its_projection() -> None:
    mixture = make("mos", experts=1)
    assert isinstance(mixture, MixtureOfSoftmaxes)
    contexts = torch.randn(9, H, dtype=torch.float64)
    plain = make("softmax", context=5)
    plain.load_state_dict({"weight": mixture.weight, "bias": mixture.bias})
    torch.testing.assert_close(
        mixture.log_probs(contexts), plain.log_probs(torch.tanh(mixture.projection(contexts))), rtol=0, atol=1e-12
    )


def test_equal_experts_are_one_softmax() -> None:
    mixture = make("mos", experts=4)
    with torch.no_grad():
        first = mixture.projection.weight[:5].clone()
        mixture.projection.weight.copy_(first.repeat(4, 1))
        mixture.projection.bias.copy_(mixture.projection.bias[:5].repeat(4))
    contexts = torch.randn(9, H, dtype=torch.float64)
    latent, _ = mixture.mixture(contexts)
    one = torch.log_softmax(latent[:, 0] @ mixture.weight.T + mixture.bias, -1)
    torch.testing.assert_close(mixture.log_probs(contexts), one, rtol=0, atol=1e-12)


def test_mixture_is_the_published_sum() -> None:
    """Yang et al. 2018, equation 3, written in probabilities."""
    built = make("mos")
    contexts = torch.randn(7, H, dtype=torch.float64)
    prior = torch.softmax(contexts @ built.prior.weight.T, -1)
    latent = torch.tanh(contexts @ built.projection.weight.T + built.projection.bias).view(7, 3, 5)
    p = (prior[..., None] * torch.softmax(latent @ built.weight.T + built.bias, -1)).sum(1)
    torch.testing.assert_close(built.log_probs(contexts).exp(), p, rtol=1e-12, atol=1e-14)


def test_mixture_of_contexts_has_the_rank_of_a_softmax_and_mos_does_not() -> None:
    contexts = torch.randn(60, H, dtype=torch.float64) * 5
    moc, mos = make("moc"), make("mos")
    assert isinstance(moc, MixtureOfContexts)
    assert sum(p.numel() for p in moc.parameters()) == sum(p.numel() for p in mos.parameters())
    rank = {h: int(torch.linalg.matrix_rank(b.log_probs(contexts))) for h, b in (("moc", moc), ("mos", mos))}
    # d + 1 for the context part and the normaliser, + 1 for the bias
    assert rank["moc"] <= 5 + 2
    assert rank["mos"] == V


def test_training_loss_uses_eps_and_evaluation_does_not() -> None:
    built = make("mos", eps=1e-2)
    contexts, targets = torch.randn(5, H, dtype=torch.float64), torch.arange(5)
    true = built.nll(contexts, targets)
    torch.testing.assert_close(built.train().nll(contexts, targets), -(torch.exp(-true) + 1e-2).log())


def test_latent_dropout_is_locked_along_time() -> None:
    built = make("mos", latent_dropout=0.5).train()
    contexts = torch.randn(1, 2, H, dtype=torch.float64).expand(6, 2, H)
    latent, _ = built.mixture(contexts)
    by_time = latent.view(6, 2, -1)
    torch.testing.assert_close(by_time, by_time[:1].expand_as(by_time))
    assert 0.2 < (by_time == 0).double().mean() < 0.8


def test_down_projection_of_a_plain_softmax() -> None:
    built = make("softmax", dimension=4)
    assert isinstance(built, Softmax)
    assert built.projection.weight.shape == (4, H)
    assert built.weight.shape == (V, 4)


def test_sizes_that_do_not_fit_are_refused_with_the_way_out() -> None:
    tied = torch.nn.Parameter(torch.randn(V, 4))
    with pytest.raises(InputError) as caught:
        make("softmax", tied=tied)
    assert str(caught.value) == (
        "head: the tied output embeddings have size 4, and the head's is 6. Make the encoder's last layer 4, give the "
        "head dimension: 4 (a linear projection), or untie them with tied: false."
    )


def test_untied_output_embeddings_start_in_the_published_range() -> None:
    built = make("softmax")
    assert built.weight.abs().max() <= 0.1
    assert built.bias.abs().max() == 0
    assert math.isclose(built.weight.std().item(), 0.1 / math.sqrt(3), rel_tol=0.25)


@pytest.mark.parametrize(
    ("head", "pointwise"), [("softmax", "sigsoftmax"), ("mos", "identity"), ("moc", "gss"), ("mos", "plif")]
)
@pytest.mark.parametrize("kernel", ["chunked", "reference"])
@pytest.mark.parametrize("arithmetic", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("inside", [True, False], ids=["projection in the loop", "before it"])
def test_a_loss_means_the_same_by_every_kernel(
    head: str, pointwise: str, kernel: Any, arithmetic: Any, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suite.models.heads.head.PROJECTION_BYTES", 0 if inside else 2**40)
    options = {} if head == "softmax" else {"latent_dropout": 0.3, "eps": 1e-3}
    built = make(head, pointwise, **options).float().train()
    contexts, targets = torch.randn(4, 3, H), torch.randint(V, (4, 3))
    built.kernel = "reference"
    torch.manual_seed(7)
    plain, _ = built.loss(contexts, targets)
    expected = torch.autograd.grad(plain, list(built.parameters()))
    built.kernel, built.arithmetic = kernel, arithmetic
    torch.manual_seed(7)
    loss, nats = built.loss(contexts, targets)
    assert built.kernel_used == kernel
    assert not nats.requires_grad
    tolerance = {"float16": 5e-3, "bfloat16": 4e-2}.get(arithmetic, 1e-4)
    for found, wanted in zip(torch.autograd.grad(loss, list(built.parameters())), expected, strict=True):
        # A rounded logit may fall on a neighbouring piece of PLIF, whose slope is another.
        if pointwise == "plif" and arithmetic in ("float16", "bfloat16"):
            continue
        assert (found - wanted).norm() <= tolerance * wanted.norm()
    torch.testing.assert_close(loss, plain, rtol=tolerance, atol=tolerance)


def test_evaluation_multiplies_what_it_is_given() -> None:
    built = make("mos")
    contexts, targets = torch.randn(5, H).double(), torch.arange(5)
    exact = built.nll(contexts, targets)
    built.arithmetic = "bfloat16"
    torch.testing.assert_close(built.nll(contexts, targets), exact, rtol=0, atol=0)
    assert (built.train().nll(contexts, targets) - exact).abs().max() > 1e-6


@pytest.mark.parametrize("head", names("head"))
def test_scores_without_gradients_are_those_with_them(head: str) -> None:
    built = make(head, "sigsoftmax")
    contexts, targets = torch.randn(9, H).double(), torch.randint(V, (9,))
    with_gradients = built.nll(contexts, targets)
    assert with_gradients.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(built.nll(contexts, targets), with_gradients, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(built.log_probs(contexts), built.log_probs(contexts))
    assert built.log_probs(contexts).requires_grad


def test_expert_contexts_need_not_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the projection in the loop no tensor has N x K x d elements."""
    monkeypatch.setattr("suite.models.heads.head.PROJECTION_BYTES", 0)
    monkeypatch.setattr("suite.kernels.chunked.DEFAULT_BYTES", {"cpu": 20 * 3 * V * 8})
    built = make("mos", dimension=16).train()
    built.kernel = "chunked"
    contexts, targets = torch.randn(400, H).double().requires_grad_(), torch.randint(V, (400,))
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    with Watch():
        built.loss(contexts, targets)[0].backward()
    assert max(sizes) < 400 * 3 * 16 / 2
