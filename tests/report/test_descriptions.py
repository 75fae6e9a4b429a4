"""The sentences that stand for a figure where it is not seen."""

from __future__ import annotations

from suite.report.descriptions import (
    costs_sentence,
    curve_sentence,
    precision_sentence,
    spectrum_sentence,
    synthetic_sentence,
)


def test_quality_against_cost() -> None:
    points = [("a/softmax", 60.0, 2.0), ("a/mos-15", 58.0, 3.4)]
    assert costs_sentence("ptb · p · train", "ppl", points) == (
        "Mean perplexity against training seconds an epoch of 2 models, ptb · p · train: the lowest is a/mos-15 with "
        "58.00 at 3.40 s; the fastest is a/softmax with 60.00 at 2.00 s."
    )
    assert costs_sentence("x", "ppl", [points[0], ("b", 61.0, 9.0)]) == (
        "Mean perplexity against training seconds an epoch of 2 models, x: the lowest and the fastest is a/softmax "
        "with 60.00 at 2.00 s."
    )


def test_a_curve_over_a_published_one() -> None:
    ours = {"raw": {1: 90.0, 2: 80.0}, "averaged": {9: 60.0}}
    assert curve_sentence("m", "a log", ours, {1: 91.0, 2: 79.5, 3: 70.0}) == (
        "Validation perplexity of m, by epoch over a log, with the difference below: raw 80.00 against 79.50 published "
        "at epoch 2."
    )
    assert curve_sentence("m", "a log", {"raw": {7: 1.0}}, {1: 91.0}).endswith(
        "with the difference below: they share no epoch."
    )


def test_precisions_speak_at_an_epoch_that_all_reached() -> None:
    curves = {"float16": {1: 90.0, 2: 80.0, 3: 75.0}, "float32": {1: 91.0, 2: 81.0}}
    assert precision_sentence("m", curves) == (
        "Validation perplexity of m, by epoch under 2 arithmetics; at epoch 2, the last they share: float16 80.00, "
        "float32 81.00."
    )
    assert precision_sentence("m", {"a": {1: 1.0}, "b": {2: 1.0}}) == (
        "Validation perplexity of m, by epoch under 2 arithmetics, which share no epoch."
    )


def test_spectra_by_where_they_fall() -> None:
    spectra = {
        "softmax": [(1, 1.0), (8, 1e-3), (9, 1e-12)],
        "moc": [(1, 1.0), (9, 1e-9)],
        "mos": [(1, 1.0), (128, 1e-4)],
    }
    assert spectrum_sentence("d (test), p", spectra) == (
        "Singular values of the matrix of log-probabilities of d (test), p, over the largest, by index. Against a "
        "threshold of 1e-07: fall below it at about index 9: softmax, moc; stay above it to the last index: mos."
    )


def test_heat_maps_by_the_places_that_all_heads_have() -> None:
    gaps = {"softmax": {(100, 4): 1.0, (100, 8): 0.5, (200, 4): 9.0}, "plif": {(100, 4): 0.5, (100, 8): 0.25}}
    assert synthetic_sentence("synthetic experiment: N = 10", gaps) == (
        "Heat maps of the synthetic experiment: N = 10, over 2 numbers of words and 2 sizes: KL gap and share of modes "
        "matched, also over the softmax's. Mean KL gap in nats where all heads were run, lowest first: plif 0.375, "
        "softmax 0.75."
    )
    assert synthetic_sentence("t", {"a": {(1, 1): 1.0}, "b": {(2, 2): 1.0}}).endswith("no place has all heads.")
