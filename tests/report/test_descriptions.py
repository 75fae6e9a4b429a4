"""The sentences that stand for a figure where it is not seen."""

from __future__ import annotations

from suite.report.descriptions import (
    costs_sentence,
    curve_sentence,
    experts_sentence,
    forest_sentence,
    functions_sentence,
    heads_sentence,
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
    assert costs_sentence("x", "ppl", points, ["a/softmax", "a/mos-15"]).endswith(
        " None is as good and as fast as: a/softmax, a/mos-15."
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


def test_heads_by_the_fastest_of_ours_and_of_their_peers() -> None:
    def row(form: str, milliseconds: float) -> dict[str, object]:
        return {"form": form, "dtype": "tf32", "ms": milliseconds, "peak_mib": 100 * milliseconds}

    shapes = {
        (840, 15, 280, 10000): [row("one pass", 1.31), row("materialised", 3.8), row("one pass, Plif", 0.5)],
        (1, 1, 2, 3): [row("one pass, Plif", 0.5)],
    }
    assert heads_sentence(shapes, "on one GPU") == (
        "Bars of the time and memory of a head's loss by shape, on one GPU; the fastest of each. N 840, K 15, d 280, "
        "V 10,000: one pass, tf32, 1.31 ms, 131 MiB against materialised, tf32, 3.80 ms, 380 MiB; N 1, K 1, d 2, V 3: "
        "no one pass and no peer."
    )


def test_a_forest_says_every_line() -> None:
    assert forest_sentence("ptb", "ppl", [("a against b", "+1.0 %, worse"), ("c against d", "stopped at 1 epoch")]) == (
        "Ours against published perplexity on ptb, a line for each number that a run of ours answers. a against b: "
        "+1.0 %, worse; c against d: stopped at 1 epoch."
    )


def test_experts_by_the_fewest_and_the_most() -> None:
    quality, ranks = {"mos": {1: 60.0, 3: 59.0, 9: 58.0}, "moc": {2: 61.0}}, {"mos": {1: 40.0, 9: 9000.0}}
    assert experts_sentence("ptb", "ppl", quality, ranks) == (
        "Mean perplexity and rank by number of experts, ptb. mos: perplexity 60.00 with 1, perplexity 58.00 with 9, "
        "rank 40 with 1, rank 9,000 with 9; moc: perplexity 61.00 with 2."
    )


def test_functions_by_their_slopes() -> None:
    assert functions_sentence("ptb", {"plif": (-9.0, 12.5, 0.4, 1.75)}) == (
        "Learned pointwise functions beside the identity, and their slopes where 98 % of logits lie, ptb. plif: logits "
        "-9 to 12.5, slopes 0.4 to 1.75."
    )
    assert functions_sentence("ptb", {"plif": (-9.0, 12.5, 0.4, 1.75, 1.0, 1.2)}).endswith(
        " slopes 0.4 to 1.75, as built 1 to 1.2."
    )
