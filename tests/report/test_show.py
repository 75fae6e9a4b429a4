from __future__ import annotations

import pytest
from records_factory import make_record

from suite.records.published import load_published
from suite.report import formatting
from suite.report.compare import Summary
from suite.report.pairing import with_interval
from suite.report.show import compare_lines, render
from suite.spec.task import Deviation

CURVE = [
    {"epoch": 1.0, "step": 100.0, "valid_ppl": 200.0},
    {"epoch": 2.0, "step": 200.0, "valid_ppl": 90.0},
    {"epoch": 3.0, "step": 300.0, "valid_ppl": 95.0},
]


def test_a_page_says_what_the_record_holds() -> None:
    record = make_record(test=55.9, curves=CURVE)
    text = render(record, load_published())
    assert text.startswith(f"mos-ptb ptb awd-lstm/mos-15 seed 1\n  run              {record.run_key}\n")
    for line in (
        "  parameters       21,500,620",
        "  train test   ppl 55.90",
        "  best valid_ppl  epoch 2, step 200, valid_ppl 90",
        "  seconds per epoch (median)  40.0",
        "  peak MiB (NVML, process)    9,880",
        "  command        suite run tasks/mos-ptb.yaml",
        "  recipe.optimizer.lr               20.0",
    ):
        assert line in text.splitlines()


def test_lines_beside_the_published_numbers() -> None:
    first, *_ = compare_lines(make_record(test=55.9), load_published())
    assert first == (
        "ptb awd-lstm/mos-15 train: test ppl 55.90 (1); 55.97 published (Yang et al. 2018, tables 1, 5, 7); "
        "difference -0.07; single run"
    )


def test_deviations_stand_with_their_reason_and_effect() -> None:
    tf32 = Deviation(what="TF32 products", why="the GPU has no other fast ones", effect="none seen.")
    epochs = Deviation(what="300 epochs", why="time is scarce", effect="at most +0.1")
    blocks = render(make_record(), deviations=(tf32, epochs)).split("\n\n")
    assert (
        "Deviations from the published recipe\n"
        "  - TF32 products; why: the GPU has no other fast ones; effect: none seen.\n"
        "  - 300 epochs; why: time is scarce; effect: at most +0.1."
    ) in blocks
    assert "Deviations" not in render(make_record())


def test_runs_that_are_compared_with_nothing() -> None:
    published = load_published()
    smoke = make_record(scope="smoke", recipe={"budget": {"epochs": 1, "steps": 20}})
    assert compare_lines(smoke, published) == [
        "mos-ptb ptb awd-lstm/mos-15 seed 1: a smoke run (1 epoch, 20 steps), "
        "not comparable with published numbers"
    ]  # fmt: skip
    diverged = make_record(status="diverged", message="the loss is nan")
    assert compare_lines(diverged, published) == ["mos-ptb ptb awd-lstm/mos-15 seed 1 diverged: the loss is nan"]
    assert compare_lines(make_record(dataset="mine"), published) == []


def test_a_run_that_failed_early_still_has_a_page() -> None:
    record = make_record(status="failed", message="no room on the disk").model_copy(
        update={"model": None, "costs": None, "environment": None}
    )
    text = render(record)
    assert "  message    no room on the disk" in text.splitlines()
    assert "Costs" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.012345, "0.0123"), (1.2345, "1.23"), (9.999, "10.0"), (99.96, "100"), (12345.6, "12,300")],
)
def test_costs_have_three_digits(value: float, shown: str) -> None:
    assert formatting.cost(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.001, "0.00"), (-0.001, "0.00"), (0.07, "+0.07"), (-0.07, "-0.07"), (1234.5, "+1,234.50")]
)
def test_differences_are_signed_unless_nothing_is_left(value: float, shown: str) -> None:
    assert formatting.signed(value, "ppl") == shown


def test_a_difference_of_shares_is_in_points() -> None:
    assert formatting.metric(44.5, "mode_match") == "44.5 %"
    assert (formatting.signed(-0.46, "mode_match"), formatting.signed(0.01, "mode_match")) == (
        "-0.5 points",
        "0.0 points",
    )
    found = Summary(3, 44.5, 1.0, 40.6, 48.4)
    assert with_interval(found, "mode_match", sign=-1) == "-44.5 [-48.4, -40.6] points"
    assert with_interval(found, "ppl") == "+44.50 [+40.60, +48.40]"
