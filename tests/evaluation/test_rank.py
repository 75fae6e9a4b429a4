"""The rank of a log-probability matrix, block by block, against the whole matrix at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import stream, table_model, text_model

from suite.data.base import DistributionData, TextData
from suite.errors import Diverged, InputError
from suite.evaluation import perplexity
from suite.evaluation.rank import Rank, rank_metrics, singular_values
from suite.measurement.clock import PhaseClock
from suite.models.heads.head import Head, MixtureOfContexts, MixtureOfSoftmaxes, Softmax
from suite.models.language_model import LanguageModel
from suite.progress import Progress
from suite.spec.recipe import Recipe
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec
from suite.stages import RunContext


def whole_matrix(model: LanguageModel, contexts: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    with torch.no_grad():
        matrix: np.ndarray[Any, np.dtype[np.float64]] = model.head.eval().log_probs(contexts).numpy()
    return matrix


@pytest.mark.parametrize(("rows", "words"), [(90, 13), (13, 13), (7, 13), (29, 13), (20, 40)])
@pytest.mark.parametrize("budget", [1, 8 * 13 * 3 * 17, 1 << 30])
def test_blocks_give_the_singular_values_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: int, words: int, budget: int
) -> None:
    monkeypatch.setattr(perplexity, "_LOGITS_BYTES", {"cpu": budget})
    model = text_model(vocabulary=words, experts=3)
    contexts = torch.randn(rows, 5)
    values, counted = singular_values(model, contexts)
    expected = np.linalg.svd(whole_matrix(model, contexts), compute_uv=False)
    assert counted == rows
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-10, atol=1e-12 * expected[0])


def rank_of(head: type[Head], **options: Any) -> dict[str, float]:
    model = text_model(head, vocabulary=60, **options)
    values, rows = singular_values(model, torch.randn(200, 5))
    return rank_metrics(values, rows, 60)


def test_a_softmax_is_held_by_its_dimension_and_a_mixture_is_not() -> None:
    # d contexts, the bias and the normaliser: log p = W h + b - log Z.
    assert rank_of(Softmax)["rank"] <= 5 + 2
    assert rank_of(Softmax, bias=False)["rank"] <= 5 + 1
    assert rank_of(MixtureOfContexts, experts=4)["rank"] <= 5 + 2
    assert rank_of(MixtureOfSoftmaxes, experts=4)["rank"] == 60
    assert rank_of(Softmax, pointwise="sigsoftmax")["rank"] == 60


def test_the_ranks_of_a_softmax_agree_at_every_threshold() -> None:
    assert len(set(rank_of(Softmax).values())) == 1


def test_thresholds() -> None:
    largest = 100.0
    rows, columns = 400, 50
    numpy_default = largest * rows * 2.0**-52
    press = 0.5 * np.sqrt(rows + columns + 1) * largest * 2.0**-23
    tops = [numpy_default, press, largest * 1e-3, largest * 1e-5, largest * 1e-7]
    values = torch.tensor(sorted([largest, *(t * f for t in tops for f in (0.999, 1.001)), 0.0], reverse=True))
    found = rank_metrics(values, rows, columns)
    by_hand = {
        name: float(sum(v > top for v in values.tolist()))
        for name, top in zip(["rank", "rank_press", "rank_1e-3", "rank_1e-5", "rank_1e-7"], tops, strict=True)
    }
    assert found == by_hand
    assert sorted(found.values()) == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_numpy_counts_the_same_rank() -> None:
    model = text_model(Softmax, vocabulary=30)
    contexts = torch.randn(45, 5)
    values, rows = singular_values(model, contexts)
    assert rank_metrics(values, rows, 30)["rank"] == np.linalg.matrix_rank(whole_matrix(model, contexts))


def test_the_model_stays_as_it_was() -> None:
    model = text_model(Softmax).float()
    before = model.head.weight
    singular_values(model, torch.randn(20, 5, dtype=torch.float32))
    assert model.head.weight is before
    assert model.head.weight.dtype == torch.float32


def test_a_log_probability_that_is_no_number_is_a_divergence() -> None:
    model = text_model(Softmax)
    with pytest.raises(Diverged, match=r"\Aa log-probability is not finite: the rank is not defined\Z"):
        singular_values(model, torch.full((20, 5), float("nan")))


def context_of(model: LanguageModel, data: TextData | DistributionData, folder: Path, bptt: int) -> RunContext:
    part = ComponentSpec("made-up")
    labels = Labels("made-up", "made-up", "made-up")
    spec = RunSpec("t", 1, part, part, part, {}, (), seed=1, scope="full", labels=labels)
    cpu = torch.device("cpu")
    return RunContext(
        spec=spec,
        recipe=Recipe(bptt=bptt),
        data=data,
        device=cpu,
        model=model,
        folder=folder,
        clock=PhaseClock(cpu),
        emit=lambda *_, **__: None,
        progress=Progress(),
        stop=lambda: None,
        save=lambda _: None,
    )


@pytest.mark.parametrize(("limit", "rows"), [(None, 79), (30, 30), (500, 79)])
def test_the_stage_reads_the_test_split_with_the_state_carried(tmp_path: Path, limit: int | None, rows: int) -> None:
    model, ids = text_model(Softmax, vocabulary=40), stream(80, 40)
    other = stream(80, 40, seed=9)
    data = TextData({"train": other, "valid": other, "test": ids}, 40, {})
    context = context_of(model, data, tmp_path, bptt=7)
    with torch.no_grad():
        inputs = torch.from_numpy(ids[:rows]).long().unsqueeze(1)
        encoded = model.eval().encoder(inputs, model.encoder.initial_state(1, torch.device("cpu")))
    values = np.linalg.svd(whole_matrix(model, encoded.output.squeeze(1)), compute_uv=False)
    assert Rank(contexts=limit).run(context, None) == {"test": rank_metrics(torch.from_numpy(values), rows, 40)}
    assert context.clock.seconds.keys() == {"evaluate"}


def test_the_stage_refuses_data_without_text(tmp_path: Path) -> None:
    context = context_of(table_model(3, 4), DistributionData(np.full((3, 4), 0.25), {}), tmp_path, bptt=7)
    with pytest.raises(InputError, match=r"\Astage rank needs a text dataset\Z"):
        Rank().run(context, None)
