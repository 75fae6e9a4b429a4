"""The expected divergence between contexts: drawn pairs against every pair."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VOCABULARY, stream, text_model
from stage_runs import context_of

from suite.data.base import TextData
from suite.errors import DataError, Diverged, InputError
from suite.evaluation import perplexity
from suite.evaluation.contexts import contexts_along
from suite.evaluation.divergence import Divergence, draw_pairs, pairwise_kl
from suite.models.heads.head import MixtureOfSoftmaxes, Softmax


def text() -> TextData:
    return TextData({"train": stream(9), "valid": stream(12, seed=1), "test": stream(20, seed=2)}, VOCABULARY, {})


@pytest.mark.parametrize("budget", [1, 8 * VOCABULARY * 6, 1 << 24])
def test_the_divergence_of_a_pair(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(perplexity, "_LOGITS_BYTES", {"cpu": budget})
    model = text_model(MixtureOfSoftmaxes, experts=3).eval()
    contexts = torch.randn(8, 5)
    first, second = torch.tensor([0, 3, 7, 2]), torch.tensor([1, 0, 2, 7])
    found = pairwise_kl(model.head, contexts, first, second)
    p = torch.distributions.Categorical(logits=model.head.log_probs(contexts[first]).detach())
    q = torch.distributions.Categorical(logits=model.head.log_probs(contexts[second]).detach())
    torch.testing.assert_close(found, torch.distributions.kl_divergence(p, q), rtol=1e-10, atol=1e-12)


def test_the_mean_over_drawn_pairs_is_that_over_all_within_its_error(tmp_path: Path) -> None:
    model, data = text_model(Softmax), text()
    context = context_of(model, data, tmp_path)
    found = Divergence(pairs=4000, seed=3).run(context, None)
    for split in ("valid", "test"):
        log_p = model.head.log_probs(contexts_along(model, data.streams[split], context)).detach()
        every = (log_p.exp().unsqueeze(1) * (log_p.unsqueeze(1) - log_p.unsqueeze(0))).sum(-1)
        count = len(log_p)
        mean = float(every.sum()) / (count * (count - 1))
        off = every[~torch.eye(count, dtype=torch.bool)]
        assert found[split]["pairwise_kl_se"] == pytest.approx(float(off.std()) / 4000**0.5, rel=0.1)
        assert abs(found[split]["pairwise_kl"] - mean) < 4 * found[split]["pairwise_kl_se"]
        assert found[split]["pairs"] == 4000


@given(contexts=st.integers(2, 50), pairs=st.integers(1, 300), seed=st.integers(0, 2**62))
def test_a_pair_is_two_contexts(contexts: int, pairs: int, seed: int) -> None:
    first, second = draw_pairs(contexts, pairs, seed)
    assert len(first) == len(second) == pairs
    assert (first != second).all()
    assert int(torch.cat((first, second)).max()) < contexts
    assert int(torch.cat((first, second)).min()) >= 0


def test_every_ordered_pair_is_as_likely() -> None:
    first, second = draw_pairs(4, 24000, 5)
    counts = torch.bincount(first * 4 + second, minlength=16).view(4, 4)
    assert counts.diagonal().sum() == 0
    assert ((counts + 2000 * torch.eye(4)) - 2000).abs().max() < 5 * 2000**0.5


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\A1 context makes no pair; the split needs at least 3 tokens\Z"):
        draw_pairs(1, 3, 0)
    with pytest.raises(InputError, match=r"\Astage divergence: splits is empty; name valid, test or both\Z"):
        Divergence(splits=[])
    with pytest.raises(InputError, match=r"\Astage divergence: pairs: 1 gives no standard error; draw at least 2\Z"):
        Divergence(pairs=1)
    broken = text_model(Softmax)
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"\Athe divergence between contexts is not a finite number\Z"):
        Divergence(pairs=5).run(context_of(broken, text(), tmp_path), None)
