"""The rank of a log-probability matrix, block by block, against the whole matrix at once."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import stream, table_model, text_model
from stage_runs import context_of

from suite.data.base import DistributionData, TextData
from suite.errors import Diverged, InputError
from suite.evaluation import perplexity
from suite.evaluation.contexts import contexts_along
from suite.evaluation.rank import Rank, experts_in_use, rank_metrics, singular_values, spectrum
from suite.models.heads.head import Head, MixtureOfContexts, MixtureOfSoftmaxes, Softmax
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Recipe


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


def by_threshold(ranks: dict[str, float]) -> dict[str, float]:
    """Without the effective ranks, which no threshold on a singular value decides."""
    return {name: rank for name, rank in ranks.items() if not name.startswith("effective")}


def test_the_ranks_of_a_softmax_agree_at_every_threshold() -> None:
    assert len(set(by_threshold(rank_of(Softmax)).values())) == 1


def test_thresholds() -> None:
    largest = 100.0
    rows, columns = 400, 50
    numpy_default = largest * rows * 2.0**-52
    press = 0.5 * np.sqrt(rows + columns + 1) * largest * 2.0**-23
    tops = [numpy_default, press, *(largest * fraction for fraction in (1e-3, 1e-4, 1e-5, 1e-7))]
    values = torch.tensor(sorted([largest, *(t * f for t in tops for f in (0.999, 1.001)), 0.0], reverse=True))
    found = by_threshold(rank_metrics(values, rows, columns))
    by_hand = {
        name: float(sum(v > top for v in values.tolist()))
        for name, top in zip(
            ["rank", "rank_press", "rank_1e-3", "rank_1e-4", "rank_1e-5", "rank_1e-7"], tops, strict=True
        )
    }
    assert found == by_hand
    assert sorted(found.values()) == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]


@given(
    spread=st.lists(st.floats(-14, 0), min_size=2, max_size=30),
    fraction=st.sampled_from(["1e-3", "1e-4", "1e-5"]),
    data=st.randoms(use_true_random=False),
)
def test_an_effective_rank_is_the_least_that_leaves_out_so_little(
    spread: list[float], fraction: str, data: random.Random
) -> None:
    values = np.sort(np.exp(spread))[::-1]
    generator = np.random.default_rng(data.randrange(2**32))
    left, right = (np.linalg.qr(generator.normal(size=(40, len(values))))[0] for _ in range(2))

    def left_out(rank: int) -> float:
        """Of the squares of all entries, by the best matrix of that rank (Eckart and Young 1936)."""
        whole = (left * values) @ right.T
        best = (left[:, :rank] * values[:rank]) @ right[:, :rank].T
        return float(((whole - best) ** 2).sum() / (whole**2).sum())

    found = int(rank_metrics(torch.from_numpy(values.copy()), 40, 40)[f"effective_rank_{fraction}"])
    assert 1 <= found <= len(values)
    assert left_out(found) <= float(fraction) * (1 + 1e-9)
    assert left_out(found - 1) > float(fraction) * (1 - 1e-9)


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


@pytest.mark.parametrize("head", [MixtureOfSoftmaxes, MixtureOfContexts])
def test_experts_in_use_are_between_one_and_all(head: type[Head]) -> None:
    model, contexts = text_model(head, experts=4), torch.randn(50, 5)
    found = experts_in_use(model, contexts)
    assert 1 < found["experts_at_once"] < found["experts_used"] < 4
    assert model.head.prior is not None
    with torch.no_grad():
        model.head.prior.weight.zero_()
        assert experts_in_use(model, contexts) == pytest.approx({"experts_used": 4.0, "experts_at_once": 4.0})
        model.head.prior.weight[2:] = torch.tensor([[1e6, 0, 0, 0, 0], [-1e6, 0, 0, 0, 0]])
        # Each context has one expert, the sign of its first number says which.
        share = float((contexts[:, 0] > 0).double().mean())
        both = share**-share * (1 - share) ** (share - 1)
        assert experts_in_use(model, contexts) == pytest.approx({"experts_used": both, "experts_at_once": 1.0})
    assert experts_in_use(text_model(Softmax), contexts) == {}


def test_the_stage_says_how_much_of_a_mixture_there_is(tmp_path: Path) -> None:
    model, ids = text_model(vocabulary=40, experts=3), stream(60, 40)
    context = context_of(model, TextData({"train": ids, "valid": ids, "test": ids}, 40, {}), tmp_path)
    found = Rank().run(context, None)["test"]
    assert experts_in_use(model, contexts_along(model, ids, context)).items() <= found.items()


@pytest.mark.parametrize(("limit", "rows"), [(None, 79), (30, 30), (500, 79)])
def test_the_stage_reads_the_test_split_with_the_state_carried(tmp_path: Path, limit: int | None, rows: int) -> None:
    model, ids = text_model(Softmax, vocabulary=40), stream(80, 40)
    other = stream(80, 40, seed=9)
    data = TextData({"train": other, "valid": other, "test": ids}, 40, {})
    context = context_of(model, data, tmp_path, Recipe(bptt=7))
    with torch.no_grad():
        inputs = torch.from_numpy(ids[:rows]).long().unsqueeze(1)
        encoded = model.eval().encoder(inputs, model.encoder.initial_state(1, torch.device("cpu")))
    values = np.linalg.svd(whole_matrix(model, encoded.output.squeeze(1)), compute_uv=False)
    assert Rank(contexts=limit).run(context, None) == {"test": rank_metrics(torch.from_numpy(values), rows, 40)}
    assert context.clock.seconds.keys() == {"evaluate"}


def test_the_stage_refuses_data_without_text(tmp_path: Path) -> None:
    context = context_of(table_model(3, 4), DistributionData(np.full((3, 4), 0.25), {}), tmp_path)
    with pytest.raises(InputError, match=r"\Astage rank needs a text dataset\Z"):
        Rank().run(context, None)


def test_both_splits_and_the_spectrum_are_kept(tmp_path: Path) -> None:
    model = text_model(Softmax, vocabulary=40)
    data = TextData({"train": stream(9, 40), "valid": stream(50, 40, seed=1), "test": stream(60, 40, seed=2)}, 40, {})
    context = context_of(model, data, tmp_path)
    found = Rank(splits=["test", "valid"]).run(context, None)
    assert list(found) == ["test", "valid"] == [name.removeprefix("rank ") for name in context.spectra]
    for split, pairs in context.spectra.items():
        contexts = contexts_along(model, data.streams[split.removeprefix("rank ")], context)  # type: ignore[index]
        values = np.linalg.svd(whole_matrix(model, contexts), compute_uv=False)
        assert pairs[0] == [1.0, 1.0]
        assert pairs[-1][0] == len(values)
        np.testing.assert_allclose(
            [s for _, s in pairs], values[[int(i) - 1 for i, _ in pairs]] / values[0], rtol=1e-5, atol=1e-13
        )


@given(count=st.integers(1, 3000), points=st.integers(2, 200))
def test_a_spectrum_is_short_and_keeps_its_ends(count: int, points: int) -> None:
    values = torch.linspace(9.0, 1.0, count)
    pairs = spectrum(values, points)
    indices = [int(i) for i, _ in pairs]
    assert indices == sorted(set(indices))
    assert len(pairs) <= points
    assert (indices[0], indices[-1]) == (1, count)
    assert all(
        s == pytest.approx(float(values[i - 1]) / 9.0, rel=1e-5) for i, (_, s) in zip(indices, pairs, strict=True)
    )


def test_the_traps_are_shown_when_asked_for(tmp_path: Path) -> None:
    # Probabilities near 1e-8 and below, where log(p + 1e-8) is no longer linear in the logits.
    model = text_model(Softmax, vocabulary=40)
    with torch.no_grad():
        model.head.weight.mul_(5.0)
    data = TextData({"train": stream(9, 40), "valid": stream(9, 40), "test": stream(90, 40, seed=2)}, 40, {})
    context = context_of(model, data, tmp_path)
    assert set(Rank().run(context, None)["test"]).isdisjoint({"rank_eps_trap", "rank_press_float32"})
    found = Rank(eps_trap=True, press_float32=True).run(context, None)["test"]
    assert found["rank"] <= 7
    assert found["rank_eps_trap"] == 40
    contexts = contexts_along(model, data.streams["test"], context)
    rounded = whole_matrix(text_model_in_float32(model), contexts.float())
    assert rounded.dtype == np.float32
    values = np.linalg.svd(rounded, compute_uv=False)
    # Both factorisations are float32: what lies near the threshold may fall to either side of it.
    press = 0.5 * np.sqrt(89 + 40 + 1) * values[0] * 2.0**-23
    assert (values > 4 * press).sum() <= found["rank_press_float32"] <= (values > press / 4).sum()


def text_model_in_float32(model: LanguageModel) -> LanguageModel:
    return copy.deepcopy(model).float()
