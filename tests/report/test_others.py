"""Published gains, p-values, slow-downs and correlations: ours from several models' runs, and the verdict on them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record
from scipy import stats

from suite.evaluation.rank import rank_metrics, spectrum
from suite.records.published import Paper, Published, Value
from suite.records.record import Record
from suite.report.compare import correlation, p_value, t_tails
from suite.report.effective import EFFECTIVE, from_spectrum
from suite.report.leaderboard import build
from suite.report.others import OtherRow
from suite.report.table import markdown

PAPER = Paper("parthiban2021", "On", ("A B", "C D", "E F"), "AAAI", 2021)
SOFTMAX = (57.1, 57.0, 57.2, 57.1)


def number(head: str = "plif", **fields: Any) -> Published:
    base: dict[str, Any] = {
        "paper": PAPER, "table": "1", "dataset": "ptb", "encoder": "awd-lstm", "head": head, "protocol": "nt-asgd",
        "stage": "train", "values": {"test.ppl_gain": Value(0.4)}, "source": "table 1",
    }  # fmt: skip
    return Published(**{**base, **fields})


def seeds(tests: Sequence[float], **fields: Any) -> list[Record]:
    return [make_record(seed=seed, test=test, **fields) for seed, test in enumerate(tests, 1)]


def only(records: Sequence[Record], *published: Published) -> OtherRow:
    (row,) = (row for row in build(records, published, show="all").other if row.number == published[0])
    return row


def said(row: OtherRow) -> list[tuple[str, float | None, str | None]]:
    return [
        (name, None if ours.mean is None else round(ours.mean, 6), verdict) for name, _, ours, verdict in row.values
    ]


@pytest.mark.parametrize(
    ("ours", "margin", "expected"),
    [
        ((56.7, 56.6, 56.8, 56.7), 0.5, (0.4, "reproduced")),
        ((56.7, 56.6, 56.8, 56.7), 0.01, (0.4, "inconclusive")),
        ((55.0, 55.1, 54.9, 55.0), 0.01, (2.1, "better")),
        ((57.4, 57.5, 57.3, 57.4), 0.01, (-0.3, "worse")),
        ((56.7,), 0.01, (0.4, "single run")),
    ],
)
def test_a_gain_is_the_softmax_minus_the_head(
    ours: Sequence[float], margin: float, expected: tuple[float, str]
) -> None:
    records = [*seeds(SOFTMAX, head="softmax"), *seeds(ours, head="plif")]
    row = only(records, number(margin=margin))
    assert said(row) == [("test.ppl_gain", *expected)]
    assert len(row.records) == len(records)
    assert len({record.run_key for record in row.records}) == len(records)


@pytest.mark.parametrize(
    "apart",
    [
        {"protocol": "other"},
        {"encoder": "lstm"},
        {"dataset_options": {"size": 2}},
        {"recipe": {"precision": {"recurrence": "float16", "head": "float16"}}},
    ],
)
def test_a_softmax_that_is_not_alike_answers_no_gain(apart: dict[str, Any]) -> None:
    row = only([*seeds(SOFTMAX, head="softmax", **apart), *seeds((56.0, 56.1), head="plif")], number())
    assert said(row) == [("test.ppl_gain", None, None)]
    assert (row.status, row.records) == ("not run", ())


@pytest.mark.parametrize(
    ("ours", "printed", "theirs", "verdict"),
    [
        ((56.0, 56.1, 55.9), 1e-5, 56.8, "reproduced"),  # both find it better
        ((57.1, 57.0, 57.3), 0.39, 57.05, "reproduced"),  # neither finds a difference
        ((57.1, 57.0, 57.3), 1e-5, 56.5, "worse"),  # its gain is not found again
        ((57.1, 57.0, 57.3), 1e-5, 56.8, "inconclusive"),  # as large a gain may be there
        ((57.1, 57.0, 57.3), 1e-5, 57.6, "better"),  # nor its loss
        ((56.0, 56.1, 55.9), 0.39, 57.05, "better"),
        ((56.0, 56.1, 55.9), 0.39, 55.95, "inconclusive"),  # as large a gain, which theirs could not tell from none
        ((59.0, 59.1, 58.9), 1e-5, 56.8, "worse"),  # significant the other way round
        ((59.0, 59.1, 58.9), 1e-5, 58.0, "reproduced"),
    ],
)
def test_two_p_values_agree_where_their_differences_do(
    ours: Sequence[float], printed: float, theirs: float, verdict: str
) -> None:
    published = number(values={"test.ppl": Value(theirs), "test.ppl_p_value": Value(printed, n=3)})
    base = number("softmax", values={"test.ppl": Value(57.08)})
    row = only([*seeds(SOFTMAX, head="softmax"), *seeds(ours, head="plif")], published, base)
    expected = stats.ttest_ind(ours, SOFTMAX, equal_var=False).pvalue
    assert [(name, found.mean, found.n, str(said)) for name, _, found, said in row.values] == [
        ("test.ppl_p_value", pytest.approx(expected, rel=1e-9), 3, verdict)
    ]


def test_fewer_seeds_that_show_nothing_do_not_reproduce_that_there_is_nothing() -> None:
    for theirs, verdict in ((3, "reproduced"), (4, "inconclusive"), (None, "inconclusive")):
        published = number(values={"test.ppl": Value(57.05), "test.ppl_p_value": Value(0.392, n=theirs)})
        row = only([*seeds(SOFTMAX, head="softmax"), *seeds((57.1, 57.0, 57.3), head="plif")], published)
        assert str(row.values[0][3]) == verdict


def test_a_gain_over_a_reference_that_the_source_prints_no_perplexity_of_counts_by_its_own_sign() -> None:
    published = number(values={"test.ppl_p_value": Value(1e-5)})
    for ours, verdict in (((56.0, 56.1, 55.9), "reproduced"), ((57.1, 57.0, 57.3), "inconclusive")):
        row = only([*seeds(SOFTMAX, head="softmax"), *seeds(ours, head="plif")], published)
        assert str(row.values[0][3]) == verdict


def test_one_seed_gives_no_p_value() -> None:
    row = only([*seeds((57.0,), head="softmax"), *seeds((56.0,), head="plif")],
               number(values={"test.ppl_p_value": Value(0.3)}))  # fmt: skip
    assert said(row) == [("test.ppl_p_value", None, "single run")]


def test_only_the_tasks_of_both_numbers_answer_a_gain() -> None:
    mine, theirs = seeds((56.7, 56.6), head="plif", task="a"), seeds(SOFTMAX, head="softmax", task="b")
    base = number("softmax", values={"test.ppl": Value(57.08)}, tasks=("b",))
    assert said(only([*mine, *theirs], number(tasks=("a",)), base)) == [("test.ppl_gain", 0.45, "inconclusive")]
    assert said(only([*mine, *theirs], number(tasks=("c",)), base)) == [("test.ppl_gain", None, None)]
    other = number("softmax", values={"test.ppl": Value(57.08)}, tasks=("c",))
    assert said(only([*mine, *theirs], number(tasks=("a",)), other)) == [("test.ppl_gain", None, None)]


def test_what_a_p_value_is_against() -> None:
    frozen = number("plif-frozen", values={"test.ppl_p_value": Value(0.826, n=3)}, against="plif")
    matched = number(
        "softmax", encoder="matched-340", values={"test.ppl_p_value": Value(0.62, n=3)}, against="matched-280/mos-15"
    )
    records = [
        *seeds(SOFTMAX, head="softmax"),
        *seeds((56.8, 56.7, 56.9), head="plif"),
        *seeds((56.8, 56.6, 56.9), head="plif-frozen"),
        *seeds((56.4, 56.5, 56.3), head="softmax", encoder="matched-340"),
        *seeds((56.3, 56.5, 56.2), head="mos-15", encoder="matched-280"),
    ]
    for published, ours, theirs in (
        (frozen, (56.8, 56.6, 56.9), (56.8, 56.7, 56.9)),
        (matched, (56.4, 56.5, 56.3), (56.3, 56.5, 56.2)),
    ):
        ((_, _, found, verdict),) = only(records, published).values
        assert found.mean == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue, rel=1e-9)
        assert verdict == "reproduced"


def test_a_slow_down_of_runs_that_end_at_a_number_of_steps() -> None:
    published = number("mos-15", values={"train.slowdown": Value(3.8)})

    def runs(speed: float, **fields: Any) -> list[Record]:
        took = {"seconds_per_epoch": None, "epochs_timed": 1, "tokens_per_second": speed}
        return [make_record(head="mos-15", costs=took), make_record(head="softmax", costs={**took, **fields})]

    assert said(only(runs(100.0, tokens_per_second=200.0), published)) == [("train.slowdown", 2.0, "single run")]
    for fields in ({"seconds_per_epoch": 3.0}, {"packed": True}, {"tokens_per_second": None}):
        assert said(only(runs(100.0, **fields), published)) == [("train.slowdown", None, None)]


def test_the_first_epoch_alone_is_no_time() -> None:
    published = number("mos-15", values={"train.slowdown": Value(2)})
    for timed, expected in ((1, None), (2, 2.0)):
        records = [
            make_record(head="mos-15", costs={"seconds_per_epoch": 4.0, "epochs_timed": timed}),
            make_record(head="softmax", costs={"seconds_per_epoch": 2.0}),
        ]
        ((_, mean, _),) = said(only(records, published))
        assert mean == expected


def test_the_memory_of_a_gpu_is_compared_with_that_of_a_gpu() -> None:
    published = number("mos-15", values={"train.gpu_peak_mib": Value(16_084)})
    for source, expected in (("process", 2000.0), ("none", None)):
        took = {"gpu_peak_mib": 2000.0, "gpu_peak_source": source, "cpu_peak_mib": 900.0, "cpu_peak_source": "run"}
        ((_, mean, _),) = said(only([make_record(head="mos-15", costs=took)], published))
        assert mean == expected


def grid(points: Sequence[tuple[float, float]]) -> list[Record]:
    return [
        make_record(head=f"gss(c={place},k=2)", metrics={"train": {"test": {"rank_press_float32": rank, "ppl": ppl}}})
        for place, (rank, ppl) in enumerate(points)
    ]


def test_rank_and_perplexity_over_the_grid() -> None:
    values = {f"test.rank_ppl_correlation{name}": Value(r) for name, r in (("", 0.48), ("_without_outliers", 0.24))}
    published = number("gss-grid", values=values)
    points = [(100.0 * x, 57 + x + (-1) ** x / 5) for x in range(12)]
    row = only([*grid(points), make_record(head="gss", test=1.0)], published)
    r = statistics.correlation(*zip(*points, strict=True))
    assert said(row) == [
        ("test.rank_ppl_correlation", round(r, 6), "different"),
        ("test.rank_ppl_correlation_without_outliers", None, None),
    ]
    assert len(row.records) == 12
    (one, _) = said(only(grid(points[:3]), published))
    assert one[2] == "single run"
    (none, _) = said(only(grid(points[:1]), published))
    assert none[1:] == (None, None)


def test_a_rank_is_different_and_neither_better_nor_worse() -> None:
    records = [
        make_record(seed=seed, metrics={"train": {"test": {"ppl": 56.0, "rank_press": rank}}})
        for seed, rank in ((1, 9000.0), (2, 9001.0), (3, 9002.0))
    ]
    assert said(only(records, number("mos-15", values={"test.rank": Value(4640)}))) == [
        ("test.rank", 9001.0, "different")
    ]


def test_the_row_links_to_the_runs_it_is_made_of() -> None:
    records = [*seeds(SOFTMAX, head="softmax"), *seeds((56.7, 56.6, 56.8), head="plif")]
    text = markdown(build(records, [number()], show="all"))
    (line,) = (line for line in text.splitlines() if "ppl\\_gain" in line)
    keys = " ".join(f"[{record.run_key[:8]}]" for record in [*records[4:], *records[:4]])
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "ptb", "awd-lstm/plif", "nt-asgd", "train", "test.ppl\\_gain 0.4", "test.ppl\\_gain 0.4 ± 0.07071 (3)",
        "inconclusive", "Parthiban et al. 2021, table 1".replace("Parthiban", "B"), keys,
    ]  # fmt: skip
    assert all(f"\n[{record.run_key[:8]}]: records/" in text for record in records)


# Statistics, against scipy's


@given(count=st.integers(2, 400), decay=st.floats(0.2, 3.0), cliff=st.integers(2, 400))
def test_an_effective_rank_by_the_spectrum_of_a_record_is_that_of_its_run(count: int, decay: float, cliff: int) -> None:
    values = torch.arange(1, count + 1, dtype=torch.float64) ** -decay
    values[cliff:] *= 1e-16
    for name, exact in rank_metrics(values, count, count).items():
        if name.startswith(EFFECTIVE):
            found = from_spectrum(spectrum(values), float(name.removeprefix(EFFECTIVE)))
            assert found == pytest.approx(exact, rel=0.06, abs=1)


def test_an_effective_rank_is_what_the_run_counted_or_what_its_spectrum_says() -> None:
    printed = number("softmax", values={"test.effective_rank_1e-3": Value(52.0, margin=0.1)})
    scores = {"test": {"ppl": 57.0}}
    counted, older, none = (
        make_record(head="softmax", seed=seed, stages=("train", "rank"), metrics={"train": scores, "rank": ranks})
        for seed, ranks in enumerate(
            [{"test": {"rank": 402.0, "effective_rank_1e-3": 57.0}}, {"test": {"rank": 402.0, "rank_1e-3": 238.0}}, {}],
            1,
        )
    )
    older.spectra["rank test"] = [[1.0, 1.0], [2.0, 0.5], [3.0, 0.1], [4.0, 1e-4]]
    for records, expected in ([counted], 57.0), ([older], 3.0), ([counted, older], 30.0):
        row = only(records, printed)
        assert row.values[0][2].mean == expected
        assert row.values[0][3] == ("single run" if len(records) == 1 else "inconclusive")
    older.spectra.clear()
    for record in older, none:
        assert said(only([record], printed)) == [("test.effective_rank_1e-3", None, None)]


def test_a_train_perplexity_is_that_of_the_train_stages_last_epoch() -> None:
    printed = number("softmax", values={"train.ppl": Value(34.0, margin=0.1)})
    runs = seeds(SOFTMAX[:2], head="softmax")
    for record, last in zip(runs, (33.0, 35.2), strict=True):
        record.curves[:] = [{"epoch": 1.0, "train_ppl": 90.0}, {"epoch": 2.0, "train_ppl": last}]
        record.curves.append({"epoch": 3.0, "train_ppl": 20.0, "stage": 1.0})
    assert said(only(runs, printed)) == [("train.ppl", 34.1, "inconclusive")]
    assert said(only(runs[:1], printed)) == [("train.ppl", 33.0, "single run")]
    runs[0].curves.clear()
    assert said(only(runs[:1], printed)) == [("train.ppl", None, None)]


def test_a_lower_train_perplexity_is_different_and_no_better() -> None:
    runs = seeds(SOFTMAX, head="softmax")
    for record in runs:
        record.curves[:] = [{"epoch": 1.0, "train_ppl": 20.0 + 0.01 * record.seed}]
    printed = number("softmax", values={"train.ppl": Value(34.0)})
    assert said(only(runs, printed)) == [("train.ppl", 20.025, "different")]


@pytest.mark.parametrize(("t", "degrees"), [(0.0, 3), (0.1, 1), (2, 4.5), (30, 10), (50, 19.3), (1.9, 500), (5, 1e5)])
def test_the_tails_of_students_t(t: float, degrees: float) -> None:
    assert t_tails(t, degrees) == pytest.approx(2 * stats.t.sf(t, degrees), rel=1e-9)


def test_equal_values_have_no_spread() -> None:
    assert (p_value([1.0, 1.0], [1.0, 1.0]), p_value([1.0, 1.0], [2.0, 2.0]), p_value([1.0], [2.0, 3.0])) == (
        1,
        0,
        None,
    )


def test_pearsons_r_with_fishers_interval() -> None:
    points = [(1.0, 2.0), (2.0, 1.0), (3.0, 4.0), (4.0, 3.0), (5.0, 7.0)]
    expected = stats.pearsonr(*zip(*points, strict=True))
    found = correlation(points)
    assert found.mean == pytest.approx(expected.statistic)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert correlation([(1.0, 2.0), (1.0, 3.0)]).mean is None
