"""Scores of the categorical experiment against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_models import table_model

from suite.errors import Diverged
from suite.evaluation import perplexity
from suite.evaluation.modes import distribution_scores
from suite.models.heads.head import MixtureOfSoftmaxes


def true_rows(contexts: int, words: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rows = np.random.default_rng(5).dirichlet(np.full(words, 0.3), contexts)
    rows[0] = np.eye(words)[2]  # words of probability 0
    rows[1] = 1.0 / words
    return rows


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_gap_and_modes_by_hand(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(perplexity, "_LOGITS_BYTES", {"cpu": budget})
    contexts, words = 60, 9
    true = true_rows(contexts, words)
    model = table_model(contexts, words, MixtureOfSoftmaxes, experts=2, latent_dropout=0.5)
    with torch.no_grad():
        q = model.eval().head.log_probs(model.encoder(torch.arange(contexts), ()).output).exp().numpy()
    gap, matched = 0.0, 0
    for p_row, q_row in zip(true, q, strict=True):
        gap += sum(p * (math.log(p) - math.log(r)) for p, r in zip(p_row, q_row, strict=True) if p > 0)
        matched += int(np.argmax(p_row) == np.argmax(q_row))
    found = distribution_scores(model.train(), torch.from_numpy(true))
    assert found["kl"] == pytest.approx(gap / contexts, rel=1e-11)
    assert found["mode_match"] == pytest.approx(100 * matched / contexts)
    assert 0 < matched < contexts


def test_a_model_that_is_right_has_no_gap_and_every_mode() -> None:
    model = table_model(17, 6)
    with torch.no_grad():
        p = model.eval().head.log_probs(model.encoder(torch.arange(17), ()).output).exp()
    found = distribution_scores(model, p)
    assert found["kl"] == pytest.approx(0.0, abs=1e-14)
    assert found["mode_match"] == 100.0


def test_a_gap_that_is_no_number_is_a_divergence() -> None:
    model = table_model(17, 6)
    with torch.no_grad():
        model.head.weight[0, 0] = math.nan
    with pytest.raises(Diverged, match=r"\Athe cross-entropy gap is not a finite number\Z"):
        distribution_scores(model, torch.full((17, 6), 1 / 6))
