"""Perplexity against the definition, one word at a time, and against the official algorithm written out."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import stream, text_model

from suite.errors import Diverged
from suite.evaluation import perplexity as module
from suite.evaluation.perplexity import official_perplexity, perplexity, rows_per_chunk, score
from suite.models.heads.head import MixtureOfContexts, Softmax
from suite.models.language_model import LanguageModel

CPU = torch.device("cpu")


@torch.no_grad()
def word_by_word(model: LanguageModel, ids: npt.NDArray[np.int32], columns: int) -> list[float]:
    """Nats of every target: each column reads its pairs from a fresh state, one word a step."""
    model.eval()
    pairs = list(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    rows = math.ceil(len(pairs) / columns)
    nats = []
    for column in range(columns):
        state = model.encoder.initial_state(1, CPU)
        for word, target in pairs[column * rows : (column + 1) * rows]:
            encoded = model.encoder(torch.tensor([[word]]), state)
            state = encoded.state
            nats.append(-model.head.log_probs(encoded.output)[0, target].item())
    return nats


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("bptt", [1, 7, 100])
def test_it_is_the_mean_over_every_target_once(batch_size: int, bptt: int) -> None:
    model, ids = text_model(experts=3, latent_dropout=0.5), stream(53)
    nats = word_by_word(model, ids, batch_size)
    assert len(nats) == 52
    found = perplexity(model, ids, batch_size, bptt, CPU)
    assert found["tokens"] == 52
    assert found["nll"] == pytest.approx(sum(nats) / 52, rel=1e-12)
    assert found["ppl"] == pytest.approx(math.exp(sum(nats) / 52), rel=1e-12)


@settings(max_examples=25)
@given(tokens=st.integers(2, 40), batch_size=st.integers(1, 12), bptt=st.integers(1, 9))
def test_whatever_the_cut_no_target_is_lost_or_counted_twice(tokens: int, batch_size: int, bptt: int) -> None:
    model, ids = text_model(Softmax), stream(tokens, seed=tokens)
    found = perplexity(model, ids, batch_size, bptt, CPU)
    nats = word_by_word(model, ids, batch_size)
    assert (found["tokens"], len(nats)) == (tokens - 1, tokens - 1)
    assert found["nll"] == pytest.approx(sum(nats) / (tokens - 1), rel=1e-11)


def test_the_state_is_carried_from_segment_to_segment() -> None:
    model, ids = text_model(Softmax), stream(60)
    values = {bptt: perplexity(model, ids, 1, bptt, CPU)["nll"] for bptt in (1, 5, 13, 59)}
    assert list(values.values()) == pytest.approx([values[59]] * 4, rel=1e-12)
    # Were the state dropped, each segment would be a column of its own.
    assert values[5] != pytest.approx(sum(word_by_word(model, ids, 12)) / 59, rel=1e-6)


@torch.no_grad()
def official(model: LanguageModel, ids: npt.NDArray[np.int32], batch_size: int, bptt: int, eps: float) -> float:
    """`batchify`, `get_batch` and `evaluate` of the MoS code, line by line, with the whole distribution at hand."""
    data = torch.from_numpy(ids).long()
    nbatch = data.size(0) // batch_size
    data = data.narrow(0, 0, nbatch * batch_size)
    data_source = data.view(batch_size, -1).t().contiguous()
    model.eval()
    total_loss = 0.0
    hidden = model.encoder.initial_state(batch_size, CPU)
    for i in range(0, data_source.size(0) - 1, bptt):
        seq_len = min(bptt, len(data_source) - 1 - i)
        data = data_source[i : i + seq_len]
        targets = data_source[i + 1 : i + 1 + seq_len].view(-1)
        encoded = model.encoder(data, hidden)
        prob = model.head.log_probs(encoded.output).exp()
        log_prob = torch.log(prob.add_(eps))
        loss = torch.nn.functional.nll_loss(log_prob, targets)
        total_loss += loss.item() * len(data)
        hidden = encoded.state
    return total_loss / len(data_source)


@pytest.mark.parametrize(("batch_size", "bptt"), [(1, 7), (1, 19), (3, 5), (3, 7), (10, 3), (10, 70)])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1e-3])
def test_the_official_figure_is_the_official_algorithm(batch_size: int, bptt: int, eps: float) -> None:
    model, ids = text_model(experts=3, eps=eps), stream(97)
    expected = official(model, ids, batch_size, bptt, eps)
    found = official_perplexity(model, ids, batch_size, bptt, CPU)
    assert found["official_nll"] == pytest.approx(expected, rel=1e-12)
    assert found["official_ppl"] == pytest.approx(math.exp(expected), rel=1e-12)


def test_the_official_figure_is_low_by_one_row_in_all() -> None:
    model, ids = text_model(Softmax), stream(40)
    true = perplexity(model, ids, 1, 9, CPU)["nll"]
    assert official_perplexity(model, ids, 1, 9, CPU)["official_nll"] == pytest.approx(true * 39 / 40, rel=1e-12)


@pytest.mark.parametrize("budget", [1, 8 * 11 * 3 * 5, 1 << 30])
def test_chunks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    model, ids = text_model(experts=3), stream(53)
    whole = perplexity(model, ids, 4, 9, CPU)
    monkeypatch.setattr(module, "_LOGITS_BYTES", {"cpu": budget})
    assert perplexity(model, ids, 4, 9, CPU)["nll"] == pytest.approx(whole["nll"], rel=1e-13)


def test_a_chunk_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS_BYTES", {"cpu": 8 * 11 * 3 * 5})
    assert rows_per_chunk(text_model(experts=3).head, torch.float64) == 5
    assert rows_per_chunk(text_model(experts=3).head, torch.float32) == 10
    # One averaged context has one row of logits, however many experts made it.
    assert rows_per_chunk(text_model(MixtureOfContexts, experts=3).head, torch.float64) == 15
    monkeypatch.setattr(module, "_LOGITS_BYTES", {"cpu": 1})
    assert rows_per_chunk(text_model(experts=3).head) == 1


def test_score_is_the_negative_log_probability_of_each_target() -> None:
    model = text_model(experts=3).eval()
    contexts, targets = torch.randn(6, 5), torch.tensor([0, 10, 3, 3, 7, 1])
    expected = -model.head.log_probs(contexts)[torch.arange(6), targets]
    torch.testing.assert_close(score(model, contexts, targets), expected)


@pytest.mark.parametrize("scorer", [perplexity, official_perplexity])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_divergence(scorer: object, value: float) -> None:
    model = text_model(Softmax)
    with torch.no_grad():
        model.head.weight[0, 0] = value
    assert callable(scorer)
    with pytest.raises(Diverged, match=r"\Athe evaluation loss is not a finite number\Z"):
        scorer(model, stream(30), 2, 5, CPU)


def test_a_huge_loss_is_a_number_and_not_an_overflow() -> None:
    model = text_model(Softmax)
    with torch.no_grad():
        model.head.weight.mul_(1e6)
    found = perplexity(model, stream(30), 2, 5, CPU)
    assert found["nll"] > 710
    assert found["ppl"] == math.exp(700)


def test_scoring_leaves_dropout_off_and_no_gradient() -> None:
    model, ids = text_model(experts=3, latent_dropout=0.9).train(), stream(40)
    assert perplexity(model, ids, 2, 7, CPU) == perplexity(model, ids, 2, 7, CPU)
    assert all(parameter.grad is None for parameter in model.parameters())
