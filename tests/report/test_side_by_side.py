"""Runs set side by side: differences of specs, paired metrics, curves, and costs that count or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record
from scipy import stats

from suite.cli import main
from suite.errors import InputError
from suite.records.record import Record
from suite.records.store import Store
from suite.report.compare import paired
from suite.report.side_by_side import render
from suite.report.side_costs import cost_rows
from suite.report.side_curves import chosen, curve, sparkline
from suite.report.sides import Side, ranges, side_of


def sides(*groups: Sequence[Record]) -> list[Side]:
    return [side_of(letter, letter, group) for letter, group in zip("ABCD", groups, strict=False)]


def curve_of(*values: float) -> list[dict[str, float]]:
    return [{"epoch": float(epoch), "valid_ppl": value} for epoch, value in enumerate(values, 1)]


def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a title, cells apart."""
    lines = text.split(f"{title}\n", 1)[1].split("\n\n")[0].splitlines()
    return [[cell for cell in line.split("  ") if cell.strip()] for line in lines[2:]]


def test_only_what_differs_is_told_and_differences_are_paired() -> None:
    base = [make_record(head="softmax", seed=seed, test=60 + noise) for seed, noise in ((1, 0.0), (2, 0.5), (3, 1.0))]
    ours = [make_record(seed=seed, test=56 + noise) for seed, noise in ((2, 0.4), (3, 1.1), (9, 5.0))]
    text = render(sides(base, ours))
    assert rows_of(text, "Specs differ in") == [["head.name", "softmax", "mos-15"]]
    assert "Machine and code differ" not in text
    # Seeds 2 and 3 are shared, where the differences are -4.1 and -3.9: t(1) times 0.1 is 1.27.
    cells = [[cell.strip() for cell in row] for row in rows_of(text, "Metrics")]
    assert cells[1] == ["train test ppl", "60.50 ± 0.50 (3)", "58.17 ± 2.48 (3)", "-4.00 [-5.27, -2.73] (2)"]
    assert render(sides(base, base)).count("The specs are the same, seeds apart.") == 1


def test_without_a_shared_seed_the_difference_is_unpaired_and_one_seed_has_no_interval() -> None:
    one, two = [make_record(seed=1, test=60.0)], [make_record(head="plif", seed=2, test=58.0)]
    assert "-2.00 unpaired" in render(sides(one, two))
    three = [make_record(head="plif", seed=1, test=58.0)]
    assert [row[-1].strip() for row in rows_of(render(sides(one, three)), "Metrics")] == ["0.00 (1)", "-2.00 (1)"]


def test_what_was_scored_on_other_data_is_not_subtracted() -> None:
    said = "The sides were scored on different data, so no difference is taken."
    base = [make_record(curves=curve_of(70.0))]
    other = [make_record(dataset="wikitext-2", curves=curve_of(80.0))]
    text = render(sides(base, other))
    assert said in text
    assert "B - A" not in text
    origin = base[0].provenance.model_copy(update={"data": {"train": "b" * 64}})
    assert said in render(sides(base, [make_record(seed=2).model_copy(update={"provenance": origin})]))


@given(st.dictionaries(st.integers(0, 9), st.tuples(st.floats(1, 900), st.floats(1, 900)), min_size=2))
def test_a_paired_interval_is_students_of_the_differences(values: dict[int, tuple[float, float]]) -> None:
    ours = {seed: one for seed, (one, _) in values.items()} | {100: 7.0}
    theirs = {seed: two for seed, (_, two) in values.items()} | {200: 9.0}
    found = paired(ours, theirs)
    differences = [one - two for one, two in values.values()]
    assert found.n == len(values)
    assert found.mean == pytest.approx(sum(differences) / len(values), abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    turned = paired(theirs, ours)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    if (found.sd or 0.0) > 1e-6:
        test = stats.ttest_rel(*zip(*values.values(), strict=True)).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((test.low, test.high), rel=1e-6, abs=1e-6)


def test_curves_are_aligned_by_stage_and_epoch() -> None:
    later = [*curve_of(100.0, 50.0), {"epoch": 3.0, "stage": 1.0, "valid_ppl": 40.0}]
    stages = ("train", "finetune")
    base = [make_record(head="softmax", stages=stages, curves=curve_of(100.0, 80.0), metrics={})]
    ours = [
        make_record(
            stages=stages, seed=seed, curves=[{**p, "valid_ppl": p["valid_ppl"] + seed} for p in later], metrics={}
        )
        for seed in (1, 3)
    ]
    text = render(sides(base, ours))
    assert "No side has a metric: A finished; B finished\n" in text
    lines = text.split("Curves, valid_ppl\n", 1)[1].splitlines()
    assert lines[0] == "A  █▆   best 80.00 at epoch 2, the last"
    assert lines[1] == "B  █▂▁  best 42.00 at epoch 3 of finetune, the last"
    assert [line.split() for line in lines[5:7]] == [
        ["1", "100.00", "102.00", "+2.00"],
        ["2", "80.00", "52.00", "-28.00"],
    ]
    assert curve(ours, "valid_ppl")[1, 3] == 42.0


@given(st.lists(st.none() | st.floats(0.1, 1e6), min_size=1, max_size=200))
def test_a_line_of_blocks_rises_and_falls_with_its_values(values: list[float | None]) -> None:
    present = [value for value in values if value is not None]
    text = sparkline(values, min(present, default=1.0), max(present, default=1.0))
    assert len(text) == min(len(values), 48)
    if len(values) <= 48:
        drawn = [(value, block) for value, block in zip(values, text, strict=True) if value is not None]
        assert all(block == " " for value, block in zip(values, text, strict=True) if value is None)
        assert [block for _, block in sorted(drawn)] == sorted(block for _, block in drawn)


@given(st.integers(1, 2000))
def test_a_few_epochs_are_chosen_with_both_ends(count: int) -> None:
    points = [(0, epoch) for epoch in range(1, count + 1)]
    found = chosen(points)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert len(found) <= 8
    assert len(found) == count or len(found) >= 5


def ratio(row: str, base: dict[str, Any], ours: dict[str, Any]) -> str:
    one = make_record(head="softmax", **base)
    two = make_record(**ours)
    return next(cells[-1] for cells in cost_rows(sides([one], [two])) if cells[0] == row)


@pytest.mark.parametrize(
    ("row", "base", "ours", "said"),
    [
        ("seconds an epoch", {}, {"costs": {"seconds_per_epoch": 70.8}}, "1.77 x"),
        ("seconds an epoch", {}, {"costs": {"exclusive": None}}, "~1.00 x"),
        ("seconds an epoch", {}, {"costs": {"packed": True}}, "packed"),
        ("seconds an epoch", {"costs": {"exclusive": False}}, {}, "machine was shared"),
        ("seconds an epoch", {}, {"device": "AMD EPYC", "device_kind": "cpu"}, "CPU against GPU"),
        ("seconds an epoch", {}, {"device": "NVIDIA H100"}, "other device"),
        ("joules an epoch", {"costs": {"joules_per_epoch": 8.0}}, {"costs": {"joules_per_epoch": 12.0}}, "1.50 x"),
        ("seconds in all", {}, {"recipe": {"budget": {"epochs": 3}}}, "other budget"),
        ("peak MiB", {}, {"costs": {"gpu_peak_source": "device-minus-baseline"}}, "measured otherwise"),
        ("tokens a second", {}, {"costs": {"tokens_per_second": None}}, "-"),
    ],
)
def test_a_cost_that_does_not_count_says_why(row: str, base: dict[str, Any], ours: dict[str, Any], said: str) -> None:
    assert ratio(row, base, ours) == said


def test_costs_of_another_version_of_the_code_say_so_and_absent_ones_too() -> None:
    one, two = make_record(), make_record(head="plif")
    later = two.model_copy(update={"provenance": two.provenance.model_copy(update={"commit": "1" * 40})})
    assert cost_rows(sides([one], [later]))[0][-1] == "1.00 x, other code"
    assert cost_rows(sides([one], [two.model_copy(update={"costs": None})]))[0][-1] == "not measured"
    packed = make_record(costs={"packed": True})
    assert cost_rows(sides([packed], [one]))[0][1:] == ["(40.0)", "40.0", "packed"]


def test_runs_of_several_cells_are_no_side() -> None:
    rates = [make_record(recipe={"optimizer": {"name": "sgd", "lr": float(lr)}}) for lr in range(1, 6)]
    with pytest.raises(InputError) as caught:
        side_of("A", "head=mos-15", [*rates, make_record(head="plif")])
    assert str(caught.value) == (
        "'head=mos-15' leaves 6 runs of 6 cells, which differ in head.name (mos-15, plif), recipe.optimizer.lr "
        "(1.0, 2.0, 3.0, 3 more); add conditions until one cell is left"
    )


@given(st.lists(st.integers(-50, 50)))
def test_ranges_tell_every_number_once(numbers: list[int]) -> None:
    found: list[int] = []
    for part in ranges(numbers).split(", ") if numbers else []:
        first, dash, last = part[1:].partition("-")
        found += range(int(part[0] + first), int(last) + 1) if dash else [int(part)]
    assert found == sorted(set(numbers))


def test_the_verb_takes_keys_files_and_conditions(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    records = [make_record(head=head, seed=seed) for head in ("softmax", "plif") for seed in (1, 2)]
    paths = [store.write(record) for record in records]
    results = ["--results", str(tmp_path)]
    assert main(["compare", records[0].run_key[:9], str(paths[2]), "head=plif,seed=2", *results]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["A", "B", "C"]
    assert "C - A [95 %]" in out
    for line, said in (
        (["head=plif"], "compare sets 2 to 26 sides beside each other, not 1"),
        (["head=plif", "head=mos"], "'head=mos': none of 4 records passes"),
        (["head=plif", "hed=mos"], "unknown key 'hed'. Did you mean head? `suite query --keys` lists all."),
    ):
        assert main(["compare", *line, *results]) == 2
        assert capsys.readouterr().err == f"error: {said}\n"
    assert main(["compare", "head=a", "head=b", "--results", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"error: 'head=a': {tmp_path / 'none' / 'records'} holds no record\n"
