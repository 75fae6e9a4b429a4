from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from suite.data.batching import LengthSampler, Segment, batchify, complete_columns, segments
from suite.errors import DataError
from suite.spec.recipe import RandomLength

sizes = st.integers(1, 300)
widths = st.integers(1, 40)


@given(sizes, widths)
def test_batchify_equals_the_official_cut(tokens: int, batch_size: int) -> None:
    assume(tokens >= batch_size)
    stream = np.arange(tokens, dtype=np.int32)
    stream.flags.writeable = False
    batches = batchify(stream, batch_size)
    rows = tokens // batch_size
    # torch: data.narrow(0, 0, rows * bsz).view(bsz, -1).t().contiguous()
    expected = [[column * rows + row for column in range(batch_size)] for row in range(rows)]
    assert batches.tolist() == expected
    assert batches.dtype == np.int32
    assert batches.flags.c_contiguous
    assert batches.flags.writeable


def test_batchify_refuses_fewer_tokens_than_columns() -> None:
    with pytest.raises(DataError) as caught:
        batchify(np.zeros(19, np.int32), 20)
    assert str(caught.value) == "19 tokens cannot fill a batch of 20; lower batch_size"


@given(st.integers(2, 300), widths)
def test_every_pair_is_scored_exactly_once_in_order(tokens: int, batch_size: int) -> None:
    stream = np.arange(100, 100 + tokens, dtype=np.int32)
    stream.flags.writeable = False
    inputs, targets, mask = complete_columns(stream, batch_size)
    assert inputs.shape == targets.shape == mask.shape == (-(-(tokens - 1) // batch_size), batch_size)
    assert inputs.dtype == targets.dtype == np.int32
    assert mask.dtype == np.bool_
    assert inputs.T[mask.T].tolist() == stream[:-1].tolist()
    assert targets.T[mask.T].tolist() == stream[1:].tolist()
    assert not inputs[~mask].any()
    assert not targets[~mask].any()
    # Padding only ever ends a column, so a state carried down a column never passes through it.
    assert (np.diff(mask.astype(int), axis=0) <= 0).all()


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_stream_without_a_pair_is_refused(tokens: int) -> None:
    with pytest.raises(DataError) as caught:
        complete_columns(np.zeros(tokens, np.int32), 4)
    assert str(caught.value) == f"a stream of {tokens} tokens has nothing to predict; at least 2 are needed"


@given(st.integers(3, 400), st.integers(1, 90), st.integers(0, 2**32))
def test_segments_cover_all_rows_but_the_official_remainder(rows: int, bptt: int, seed: int) -> None:
    taken = list(segments(rows, LengthSampler(bptt, RandomLength(), seed=seed)))
    position = 0
    for segment in taken:
        assert segment.start == position
        assert segment.length >= 1
        position += segment.length
    # `while i < rows - 2`, each segment needing one row more for its targets.
    assert position in (rows - 2, rows - 1)


def test_segments_equal_the_official_loop() -> None:
    rows, bptt, seed = 1000, 70, 3
    lengths = LengthSampler(bptt, RandomLength(), seed=seed)
    official, i = [], 0
    while i < rows - 2:
        seq_len = lengths.sample()
        official.append((i, min(seq_len, rows - 1 - i), seq_len / bptt))
        i += seq_len
    assert list(segments(rows, LengthSampler(bptt, RandomLength(), seed=seed))) == official


def test_fixed_length_when_the_recipe_has_no_rule() -> None:
    assert list(segments(9, LengthSampler(3))) == [Segment(0, 3, 1.0), Segment(3, 3, 1.0), Segment(6, 2, 1.0)]


def test_too_few_rows_for_a_step_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        list(segments(2, LengthSampler(3)))
    assert str(caught.value) == "2 rows a column hold no training step; lower batch_size or use more tokens"


def test_a_saved_state_continues_the_same_epoch() -> None:
    rule = RandomLength(half_probability=0.5, max_excess=10)
    whole = list(segments(2000, LengthSampler(35, rule, seed=7)))
    first = LengthSampler(35, rule, seed=7)
    begun = segments(2000, first)
    taken = [next(begun) for _ in range(9)]
    saved = json.loads(json.dumps(first.state))
    resumed = LengthSampler(35, rule, seed=999)
    resumed.state = saved
    assert taken + list(segments(2000, resumed, taken[-1].start + taken[-1].length)) == whole


def length_probabilities(bptt: int, rule: RandomLength) -> dict[int, float]:
    """The distribution the docstring of RandomLength states, from the normal distribution function."""
    most = np.inf if rule.max_excess is None else bptt + rule.max_excess
    probabilities: dict[int, float] = {}
    for base, weight in ((bptt, 1 - rule.half_probability), (bptt / 2, rule.half_probability)):
        for value in range(-10 * bptt, 10 * bptt):
            # int() truncates towards zero: 0 collects (-1, 1).
            low, high = (value, value + 1) if value > 0 else (value - 1, value) if value < 0 else (-1, 1)
            mass = stats.norm.cdf(high, base, rule.std) - stats.norm.cdf(low, base, rule.std)
            length = int(min(max(rule.minimum, value), most))
            probabilities[length] = probabilities.get(length, 0.0) + weight * mass
    return probabilities


@pytest.mark.parametrize(
    ("bptt", "rule"),
    [
        (70, RandomLength(max_excess=40)),
        (70, RandomLength(half_probability=0.4, max_excess=3)),
        (12, RandomLength(half_probability=0.5, std=6.0, minimum=5)),
        (35, RandomLength(half_probability=0.0)),
        (35, RandomLength(half_probability=1.0)),
    ],
)
def test_lengths_follow_the_recipe(bptt: int, rule: RandomLength) -> None:
    draws = 40_000
    sampler = LengthSampler(bptt, rule, seed=11)
    lengths = np.array([sampler.sample() for _ in range(draws)])
    expected = length_probabilities(bptt, rule)
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-9)
    common = [length for length, probability in expected.items() if probability * draws >= 8]
    counts = np.array([(lengths == length).sum() for length in common], dtype=float)
    means = np.array([expected[length] for length in common]) * draws
    rest, rest_mean = draws - counts.sum(), draws - means.sum()
    statistic = ((counts - means) ** 2 / means).sum() + (rest - rest_mean) ** 2 / max(rest_mean, 8.0)
    assert statistic < stats.chi2.ppf(0.9999, len(common))
    assert lengths.min() >= rule.minimum


def test_the_learning_rate_is_scaled_by_the_length_drawn() -> None:
    sampler = LengthSampler(70, RandomLength())
    assert sampler.learning_rate_scale(35) == 0.5
    scales = [segment.learning_rate_scale for segment in segments(100_000, sampler)]
    # The mean of the scale is 0.95 + 0.05 / 2, less the half token that int() takes.
    assert np.mean(scales) == pytest.approx(0.975 - 0.5 / 70, abs=0.02)


def test_std_zero_gives_the_base_itself() -> None:
    sampler = LengthSampler(70, RandomLength(half_probability=0.0, std=0.0))
    assert {sampler.sample() for _ in range(20)} == {70}
