from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.data import base
from suite.data.base import SPLITS, DataAccess, DistributionData, TextData
from suite.data.markov import MarkovSource, dirichlet, sparse_source
from suite.data.synthetic import Categorical, HiddenMarkov
from suite.errors import InputError

GOLDEN = Path(__file__).parent / "golden_digests.json"


def small(**options: float) -> TextData:
    defaults: dict[str, float] = {
        "vocabulary": 20,
        "states": 6,
        "successors": 2,
        "emission_concentration": 0.1,
        "noise": 0.02,
        "train_tokens": 3000,
        "valid_tokens": 400,
        "test_tokens": 600,
    }
    return HiddenMarkov(**{**defaults, **options}).load(DataAccess())  # type: ignore[arg-type]


sources = st.builds(
    lambda seed, states, vocabulary, successors, concentration: sparse_source(
        np.random.default_rng(seed),
        states=states,
        vocabulary=vocabulary,
        successors=min(successors, states),
        emission_concentration=concentration,
        noise=0.01,
    ),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([0.01, 0.1, 1.0, 10.0]),
)


def enumerated(source: MarkovSource, text: list[int]) -> np.ndarray:
    """p(next | text) by summing over every path of hidden states."""
    joint = np.zeros(source.emission.shape[1])
    for path in product(range(len(source.start)), repeat=len(text) + 1):
        weight = source.start[path[0]]
        for step, symbol in enumerate(text):
            weight *= source.emission[path[step], symbol] * source.transition[path[step], path[step + 1]]
        joint += weight * source.emission[path[-1]]
    return joint / joint.sum()


@given(sources, st.data())
def test_the_filter_equals_the_sum_over_all_state_paths(source: MarkovSource, data: st.DataObject) -> None:
    symbols = st.integers(0, source.emission.shape[1] - 1)
    text = data.draw(st.lists(symbols, min_size=2, max_size=5))
    exact = np.exp(source.log_conditionals(np.array(text, np.int32)))
    for step in range(len(text) - 1):
        np.testing.assert_allclose(exact[step], enumerated(source, text[: step + 1]), rtol=1e-12, atol=0)


@given(sources)
def test_a_source_is_a_set_of_distributions(source: MarkovSource) -> None:
    for rows in (source.start[None], source.transition, source.emission):
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (source.emission > 0).all()
    # Irreducible: every state is reached from every state.
    reach = np.linalg.matrix_power(np.eye(len(source.start)) + source.transition, len(source.start))
    assert (reach > 0).all()


def test_a_long_text_neither_underflows_nor_drifts() -> None:
    # Every symbol but the last is almost impossible: without rescaling the filter would be 0 / 0 after a few steps.
    emission = np.array([[1e-9, 1 - 1e-9], [3e-9, 1 - 3e-9]])
    source = MarkovSource(np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]]), emission)
    predictions = source.state_predictions(np.zeros(2000, np.int32))
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=0, atol=1e-12)
    # The fixed point of the update, by plain power iteration.
    belief = source.start
    for _ in range(2000):
        belief = belief * emission[:, 0]
        belief = belief / belief.sum() @ source.transition
    np.testing.assert_allclose(predictions[-1], belief, rtol=1e-12)


def test_texts_follow_the_source() -> None:
    source = sparse_source(
        np.random.default_rng(0), states=5, vocabulary=7, successors=2, emission_concentration=0.5, noise=0.1
    )
    text = source.sample(np.random.default_rng(1), 60_000)
    # The stationary distribution by power iteration; squaring averages out any period.
    half_lazy = np.linalg.matrix_power((np.eye(5) + source.transition) / 2, 4096)
    expected = half_lazy[0] @ source.emission
    observed = np.bincount(text, minlength=7) / len(text)
    assert np.abs(observed - expected).max() < 0.02


def test_the_floor_is_what_the_exact_distributions_give() -> None:
    data = small()
    assert data.true_log_probs is not None
    for split in SPLITS:
        logs, stream = data.true_log_probs(split), data.streams[split]
        assert logs.shape == (len(stream) - 1, 20)
        assert logs.dtype == np.float64
        np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=0, atol=1e-12)
        nll = -logs[np.arange(len(logs)), stream[1:]].mean()
        entropy = -(np.exp(logs) * logs).sum(axis=1).mean()
        assert data.floors[split].nll == pytest.approx(nll, rel=1e-12)
        assert data.floors[split].entropy == pytest.approx(entropy, rel=1e-12)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_floor_is_close_to_the_entropy(seed: int) -> None:
    data = small(seed=seed)
    assert data.true_log_probs is not None
    logs = data.true_log_probs("train")
    # Nats lost at each step minus the entropy there are martingale differences: their mean has this deviation.
    variance = (np.exp(logs) * logs**2).sum(axis=1) - ((np.exp(logs) * logs).sum(axis=1)) ** 2
    deviation = np.sqrt(variance.sum()) / len(logs)
    assert abs(data.floors["train"].nll - data.floors["train"].entropy) < 5 * deviation


def test_no_other_prediction_beats_the_floor_in_expectation() -> None:
    data = small(train_tokens=20_000)
    stream = data.streams["train"]
    pairs = np.zeros((20, 20))
    np.add.at(pairs, (stream[:-1], stream[1:]), 1)
    # A bigram table fitted to the very tokens it is scored on knows one token; the source knows them all.
    rows = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    bigram = -np.log(rows[stream[:-1], stream[1:]]).mean()
    assert data.floors["train"].nll < bigram - 0.05


def test_facts_are_measured_on_the_data() -> None:
    data = small()
    assert data.true_log_probs is not None
    singular = np.linalg.svd(data.true_log_probs("test"), compute_uv=False)
    tolerance = singular[0] * max(599, 20) * np.finfo(np.float64).eps
    assert data.facts["log_prob_rank"] == (singular > tolerance).sum()
    weights = np.array([2999, 399, 599])
    entropies = np.array([data.floors[split].entropy for split in SPLITS])
    assert data.facts["entropy_rate_nats"] == pytest.approx((weights * entropies).sum() / weights.sum())


def test_the_default_language_breaks_a_small_softmax() -> None:
    data = HiddenMarkov().load(DataAccess())
    assert data.vocabulary_size == HiddenMarkov().vocabulary_size == 128
    assert data.unit == "symbol"
    assert data.facts["log_prob_rank"] == 128
    assert {split: len(stream) for split, stream in data.streams.items()} == {
        "train": 200_000,
        "valid": 10_000,
        "test": 10_000,
    }
    for stream in data.streams.values():
        assert stream.dtype == np.int32
        assert not stream.flags.writeable
        assert 0 <= stream.min() <= stream.max() < 128


def test_rank_is_bounded_by_the_states_when_they_are_plain_to_see() -> None:
    # One state: one distribution, hence one row repeated, rank 1 whatever the vocabulary.
    assert small(states=1, successors=1).facts["log_prob_rank"] == 1


def test_the_seed_alone_decides_and_splits_are_independent() -> None:
    first, same, other = small(seed=1), small(seed=1, test_tokens=700), small(seed=2)
    assert first.digests["train"] == same.digests["train"] != other.digests["train"]
    assert first.streams["test"].tolist() == same.streams["test"][:600].tolist()
    assert len({first.streams[split][:200].tobytes() for split in SPLITS}) == 3


def test_contradicting_options_are_refused_together() -> None:
    with pytest.raises(InputError) as caught:
        HiddenMarkov(states=3, successors=4, noise=1.5, valid_tokens=1, vocabulary=1 << 20, test_tokens=1000)
    assert str(caught.value).splitlines() == [
        "successors: 4 of only 3 states; give at most 3",
        "noise: 1.5 is not a probability; give a number above 0 and at most 1",
        "valid_tokens: 1 leaves nothing to predict; give at least 2",
        "test_tokens: the exact log-probabilities of 1000 tokens over 1048576 symbols take more than 1 GiB; "
        "give at most 128 test tokens",
    ]


@given(st.integers(1, 30), st.integers(1, 40), st.sampled_from([1e-4, 0.01, 0.1, 1.0, 1e3]), st.integers(0, 2**32))
def test_dirichlet_rows_are_distributions_at_any_concentration(n: int, m: int, beta: float, seed: int) -> None:
    rows = dirichlet(np.random.default_rng(seed), beta, (n, m))
    assert rows.shape == (n, m)
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.01, 0.3, 5.0])
def test_dirichlet_has_the_right_moments(beta: float) -> None:
    words, rows = 5, dirichlet(np.random.default_rng(0), beta, (40_000, 5))
    variance = (1 / words) * (1 - 1 / words) / (words * beta + 1)
    np.testing.assert_allclose(rows.mean(axis=0), 1 / words, atol=5 * np.sqrt(variance / 40_000))
    np.testing.assert_allclose(rows.var(axis=0), variance, rtol=0.05)


def categorical(**options: float) -> DistributionData:
    return Categorical(**options).load(DataAccess())  # type: ignore[arg-type]


def test_categorical_distributions() -> None:
    dataset = Categorical(contexts=50, words=30)
    assert (dataset.contexts, dataset.vocabulary_size) == (50, 30)
    data = dataset.load(DataAccess())
    assert data.probabilities.shape == (50, 30)
    np.testing.assert_allclose(data.probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
    rows = data.probabilities.tolist()
    entropies = [-sum(p * np.log(p) for p in row if p > 0) for row in rows]
    assert data.facts == {"entropy_nats": pytest.approx(np.mean(entropies), rel=1e-12)}
    assert data.digests != categorical(contexts=50, words=30, seed=1).digests


def test_concentration_decides_the_entropy() -> None:
    sharp, flat = (categorical(contexts=200, words=100, concentration=beta) for beta in (0.01, 100.0))
    assert sharp.facts["entropy_nats"] < 1.0
    assert np.log(100) - 0.01 < flat.facts["entropy_nats"] < np.log(100)


def test_digests_are_stable() -> None:
    """A change here changes every result on these data; UPDATE_GOLDEN=1 writes the new digests."""
    digests = {
        "hidden-markov": dict(HiddenMarkov().load(DataAccess()).digests),
        "categorical": dict(categorical(contexts=100, words=80).digests),
    }
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(digests, indent=2) + "\n")
    assert digests == json.loads(GOLDEN.read_text())


def test_the_frequencies_of_words_never_seen_are_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small(vocabulary=30, train_tokens=100)
    whole = data.frequencies()
    counts = np.bincount(data.streams["train"], minlength=30) + 1
    np.testing.assert_allclose(whole, counts / counts.sum(), rtol=1e-15)
    assert whole.min() > 0
    monkeypatch.setattr(base, "_COUNTED_AT_ONCE", 7)
    np.testing.assert_array_equal(data.frequencies(), whole)


def test_the_frequencies_of_known_distributions_are_their_mean() -> None:
    data = Categorical(contexts=5, words=7, concentration=0.5).load(DataAccess())
    np.testing.assert_allclose(data.frequencies(), data.probabilities.mean(0))
