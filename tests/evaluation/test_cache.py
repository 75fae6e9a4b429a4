"""The neural cache against a loop over words written from the definition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import VOCABULARY, stream, text_model
from stage_runs import context_of, run_in_pieces

from suite.data.base import TextData
from suite.errors import Diverged, InputError
from suite.evaluation import cache
from suite.evaluation.cache import Cache, Memory, cache_nll
from suite.evaluation.perplexity import perplexity
from suite.models.language_model import LanguageModel
from suite.stages import RunContext

CPU = torch.device("cpu")


def text(valid: int = 30, test: int = 50) -> TextData:
    return TextData({"train": stream(9), "valid": stream(valid, seed=1), "test": stream(test, seed=2)}, VOCABULARY, {})


def word_by_word(model: LanguageModel, ids: Any, theta: float, weight: float, window: int, full_window: bool) -> float:
    """Nats a word: the whole distribution of every word, then that of the cache."""
    model.eval()
    words = torch.from_numpy(ids).long().unsqueeze(1)
    with torch.no_grad():
        encoded = model.encoder(words[:-1], model.encoder.initial_state(1, CPU))
        contexts, distributions = encoded.output.squeeze(1), model.head.log_probs(encoded.output).exp()
    nats = 0.0
    for t in range(len(words) - 1):
        p = distributions[t]
        before = range(max(0, t - window), t)
        if len(before) >= (window if full_window else 1):
            shares = torch.softmax(torch.stack([theta * contexts[t] @ contexts[i] for i in before]), 0)
            of_cache = torch.zeros(VOCABULARY)
            for share, i in zip(shares, before, strict=True):
                of_cache[int(words[i + 1])] += share
            p = (1 - weight) * p + weight * of_cache
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)
        nats -= math.log(float(p[int(words[t + 1])]))
    return nats / (len(words) - 1)


@pytest.mark.parametrize("full_window", [False, True])
@pytest.mark.parametrize(("window", "bptt"), [(1, 7), (4, 50), (4, 1), (9, 4), (13, 5), (200, 11)])
@pytest.mark.parametrize("budget", [1, 8 * 13 * 6, 1 << 24])
def test_it_is_the_loop_over_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, window: int, bptt: int, budget: int, full_window: bool
) -> None:
    monkeypatch.setattr(cache, "_SCORES_BYTES", {"cpu": budget})
    model, data = text_model(experts=2), text()
    stage = Cache(theta=0.7, weight=0.3, window=window, bptt=bptt, full_window=full_window)
    found = stage.run(context_of(model, data, tmp_path), None)
    for split, tokens in (("valid", 29), ("test", 49)):
        expected = word_by_word(model, data.streams[split], 0.7, 0.3, window, full_window)  # type: ignore[index]
        assert found[split]["nll"] == pytest.approx(expected, rel=1e-12)
        assert found[split]["ppl"] == pytest.approx(math.exp(expected), rel=1e-12)
        assert found[split]["tokens"] == tokens


def test_without_weight_it_is_the_plain_perplexity(tmp_path: Path) -> None:
    model, data = text_model(), text()
    found = Cache(weight=0.0, window=6, bptt=8).run(context_of(model, data, tmp_path), None)
    for split in ("valid", "test"):
        assert found[split] == pytest.approx(perplexity(model, data.streams[split], 1, 8, CPU), rel=1e-13)


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 9),
    remembered=st.integers(0, 5),
    window=st.integers(5, 8),
    theta=st.floats(0.0, 30.0),
    weight=st.floats(0.0, 1.0),
    full_window=st.booleans(),
)
def test_every_word_has_a_share_and_the_shares_make_one(
    seed: int, length: int, remembered: int, window: int, theta: float, weight: float, full_window: bool
) -> None:
    """Over every word in the last place: the mixture is a distribution."""
    words = 5
    generator = torch.Generator().manual_seed(seed)
    log_p = torch.log_softmax(torch.randn(words, generator=generator), -1)
    contexts = torch.randn(remembered + length, 3, generator=generator)
    ids = torch.randint(words, (remembered + length,), generator=generator)
    memory = Memory(contexts[:remembered], ids[:remembered])
    total = 0.0
    for last in range(words):
        targets = ids[remembered:].clone()
        targets[-1] = last
        nll = -log_p[targets]
        mixed = cache_nll(nll, contexts[remembered:], targets, memory, window, theta, weight, full_window=full_window)
        total += math.exp(-float(mixed[-1]))
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("every", [1, 3])
def test_stopped_anywhere_it_ends_as_if_it_never_was(tmp_path: Path, every: int) -> None:
    def stage() -> Cache:
        return Cache(window=9, bptt=4)

    def context() -> RunContext:
        return context_of(text_model(), text(), tmp_path)

    whole = stage().run(context(), None)
    pieces, _, stopped = run_in_pieces(stage, context, every)
    assert pieces == whole
    assert stopped > 2


def test_a_cache_alone_meets_a_new_word_and_has_no_perplexity(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"\Athe loss with the cache is not a finite number on valid\Z"):
        Cache(weight=1.0, window=1).run(context_of(text_model(), text(), tmp_path), None)
    with pytest.raises(InputError, match=r"\Astage cache: splits is empty; name valid, test or both\Z"):
        Cache(splits=[])
