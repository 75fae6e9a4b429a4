"""Claims, heads and averaging as pages; the golden pages: ``python tests/report/test_pages.py --update``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":  # run as a script to update the golden files
    sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.records.published import load_published
from suite.records.record import Record
from suite.records.store import file_name
from suite.report.averaging import averaging_markdown
from suite.report.cells import Cell, costs
from suite.report.claims import Claim, Compare, CostRatio
from suite.report.claims_table import claims_markdown, claims_short
from suite.report.compare import Summary
from suite.report.evidence import Evidence
from suite.report.findings import judge
from suite.report.grouping import group
from suite.report.leaderboard import build
from suite.report.pages import Report
from suite.report.plot_costs import quality_against_cost
from suite.report.ranks import ranks_markdown
from suite.report.table import markdown
from suite.report.worth import Worth, worth_markdown, worths

GOLDEN = {name: Path(__file__).with_name(f"golden_{name}.md") for name in ("claims", "heads")}
SCORES = {"valid": {"ppl": 58.0}, "test": {"ppl": 56.0}}
CLAIMS = [
    Claim(id="a", claim="MoS beats a softmax.", papers=["yang2018"], note="At any size.",
          evidence=[Compare(rule="compare", heads=["mos-15"], than="softmax")]),
    Claim(id="b", claim="MoS costs 2 to 6.4 times as much.", papers=["yang2018", "parthiban2021"],
          evidence=[CostRatio(rule="cost-ratio", heads=["mos-15"], than="softmax", low=2, high=6.4)]),
    Claim(id="c", claim="Sigsoftmax beats a softmax.", papers=["kanai2018"],
          evidence=[Compare(rule="compare", heads=["sigsoftmax"], than="softmax")]),
]  # fmt: skip


def sample() -> list[Record]:
    records = []
    for head, test, seconds in (("softmax", 60.0, 2.0), ("mos-15", 58.0, 3.4), ("plif", 59.9, 2.2), ("gss", 61.0, 2.1)):
        for seed, noise in ((1, 0.0), (2, 0.1), (3, -0.1)):
            value = test + noise
            scores = {"ppl": value, "ppl@62": value - 0.8, "ppl@nt": value + 0.3, "ppl_raw": value + 8}
            metrics = {"train": {"valid": {"ppl": value + 2}, "test": scores}}
            costs = {"seconds_per_epoch": seconds, "gpu_peak_mib": 1000 * seconds}
            records.append(make_record(head=head, seed=seed, metrics=metrics, costs=costs, protocol="short-120"))
    records.append(make_record(head="sigsoftmax", protocol="short-120", test=59.0))
    long = {"train": {"test": {"ppl": 61.0, "ppl@100": 60.5, "ppl@62": 60.2}}}
    records.append(make_record(scope="short", metrics=long, recipe={"budget": {"epochs": 130}}, seed=28))
    return records


def golden_texts() -> Mapping[str, str]:
    records = sample()
    evidence = Evidence.of(records)
    judged = [judge(claim, evidence) for claim in CLAIMS]
    published = load_published()
    heads = worth_markdown(worths(evidence.cells, records)) + "\n" + averaging_markdown(evidence.with_short)
    return {"claims": claims_markdown(judged, published) + "\n" + claims_short(judged, published), "heads": heads}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pages(name: str) -> None:
    assert golden_texts()[name] == GOLDEN[name].read_text(encoding="utf-8"), (
        "run: python tests/report/test_pages.py --update"
    )


def worth(change: Summary, seconds: float | None) -> str:
    cells = {
        cell.head: cell for cell in group([make_record(head=h, seed=s) for h in ("softmax", "plif") for s in (1, 2)])
    }
    return Worth(cells["plif"], cells["softmax"], "ppl", change, seconds).verdict


@pytest.mark.parametrize(
    ("low", "high", "seconds", "said"),
    [
        (-1.1, -0.9, 1.15, "worth it: better at about the same cost"),
        (-1.1, -0.9, 2.0, "worth it"),  # 1 of 56 is 1.8 %, and one doubling asks for 1 %
        (-1.1, -0.9, 4.0, "better, but dear"),
        (-1.1, -0.9, None, "better; its cost is not measured"),
        (-1.1, 0.0, 1.0, "no gain shown"),
        (-0.1, 1.1, 1.0, "no gain shown"),
        (0.1, 1.1, 1.0, "worse"),
        (None, None, 1.0, "undecided: one seed"),
    ],
)
def test_what_a_head_is_worth(low: float | None, high: float | None, seconds: float | None, said: str) -> None:
    assert worth(Summary(2, -1.0, 0.1, low, high), seconds) == said


@given(st.floats(-20, -0.01), st.floats(1.2, 8), st.floats(1, 2))
def test_a_dearer_head_is_never_worth_more(change: float, seconds: float, factor: float) -> None:
    cheap, dear = (
        worth(Summary(2, change, 0.1, change - 0.01, change + 0.009), s) for s in (seconds, seconds * factor)
    )
    assert (cheap, dear) != ("better, but dear", "worth it")


def test_packed_runs_give_quality_and_short_runs_alone_give_costs() -> None:
    packed = [
        make_record(head=head, seed=seed, test=test + seed / 10, costs={"packed": True, "seconds_per_epoch": 99.0})
        for head, test in (("softmax", 60.0), ("mos-15", 58.0))
        for seed in (1, 2)
    ]
    alone = [
        make_record(
            head=head,
            scope="short",
            seed=7,
            costs={"seconds_per_epoch": seconds, "gpu_peak_mib": mib, "allocator_peak_mib": allocated},
        )
        for head, seconds, mib, allocated in (("softmax", 2.0, 1000.0, 300.0), ("mos-15", 3.0, 1500.0, 600.0))
    ]
    (without,) = worths(group(packed), packed)
    assert (without.seconds, without.memory, without.allocated) == (None, None, None)
    (found,) = worths(group(packed), [*packed, *alone])
    assert (found.seconds, found.memory, found.allocated, found.change.n) == (1.5, 1.5, 2.0, 2)
    # A smoke run, and one of another batch size, cost something else.
    other: dict[str, Any] = {"recipe": {"batch_size": 80}}
    for fields in ({"scope": "smoke"}, other):
        elsewhere = [make_record(head=head, seed=8, **fields) for head in ("softmax", "mos-15")]
        (still,) = worths(group(packed), [*packed, *elsewhere])
        assert still.seconds is None


def test_a_head_without_a_softmax_on_its_encoder_has_one_on_another_size() -> None:
    def run(encoder: str, head: str, test: float, seed: int) -> Record:
        return make_record(encoder=encoder, encoder_name=encoder[:4], head=head, test=test + seed / 10, seed=seed)

    sizes = [("lstm-wide", "softmax", 60.0), ("lstm-wide", "gss", 61.0), ("lstm-small", "mos-15", 58.0)]
    others = [("gru-1", "mos-15", 50.0), ("lstm-small", "moss-15", 57.0)]
    found = worths(group(run(*one, seed) for one in sizes + others for seed in (1, 2)), [])
    assert [(one.cell.method, one.base.method, one.change.mean) for one in found] == [
        ("lstm-small/moss-15", "lstm-wide/softmax", pytest.approx(-3.0)),
        ("lstm-small/mos-15", "lstm-wide/softmax", pytest.approx(-2.0)),
        ("lstm-wide/gss", "lstm-wide/softmax", pytest.approx(1.0)),
    ]
    assert worth_markdown(found).count(" 21,500,620 (lstm-wide) |") == 2


def test_runs_for_the_clock_have_costs_alone() -> None:
    records = [
        make_record(head=head, protocol="cost", costs={"seconds_per_epoch": s, "joules_per_epoch": j})
        for head, s, j in (("softmax", 2.0, 500.0), ("mos-15", 3.0, 875.0))
    ]
    (found,) = worths(group(records), records)
    assert (found.seconds, found.joules, found.verdict, found.change) == (1.5, 1.75, "costs alone", Summary(0))
    text = worth_markdown([found])
    assert "56.00" not in text
    assert "|   time |   energy |   memory |   allocated |" in text
    assert "### ptb · cost · train (for the clock)\n" in text


def test_the_memory_of_training_is_that_of_no_later_stage() -> None:
    both, one = ("train", "rank"), ("train",)
    known = make_record(stages=both, costs={"gpu_peak_mib": 9000.0, "stage_peaks_mib": {"train": 2000.0, "rank": 9000}})
    unknown, alone = (make_record(stages=stages, costs={"gpu_peak_mib": 5000.0}) for stages in (both, one))

    def peak(stage: str | None, *records: Record) -> tuple[float | None, str]:
        took = costs(records, stage)
        return took.peak_mib, took.peak_source

    assert peak("train", known) == (2000.0, "NVML, process")
    assert peak("rank", known) == peak(None, known) == (9000.0, "NVML, process")
    assert peak("train", unknown) == (5000.0, "NVML, process, later stages too")
    assert peak("rank", unknown) == peak("train", alone) == (5000.0, "NVML, process")
    assert peak("train", known, unknown) == (2000.0, "NVML, process"), "what is known is better"
    for stages, memory in ((both, None), (one, 1.0)):
        records = [make_record(head=head, stages=stages) for head in ("softmax", "plif")]
        (found,) = (one for one in worths(group(records), records) if one.cell.key.stage == "train")
        assert (found.memory, found.allocated, found.seconds) == (memory, memory, 1.0)


def test_runs_about_the_optimiser_say_nothing_of_worth() -> None:
    records = [make_record(head=head, protocol="optimizer-adamw") for head in ("softmax", "mos-15")]
    assert worths(group(records), records) == []
    assert list(quality_against_cost(group(records), records)) == []


def test_the_runs_behind_a_ratio_are_named_where_they_can_be_found() -> None:
    full = [
        make_record(head=head, seed=seed, costs={"packed": True}) for head in ("softmax", "plif") for seed in (1, 2)
    ]
    short = [make_record(head=head, scope="short", seed=7) for head in ("softmax", "plif")]
    (found,) = worths(group(full), [*full, *short])
    assert [record.run_key for record in found.timed] == [short[1].run_key, short[0].run_key]
    keys = " ".join(f"[{record.run_key[:8]}]" for record in found.timed)
    text = worth_markdown([found])
    assert f"| {keys} |" in text
    assert all(f"\n[{record.run_key[:8]}]: records/" in text for record in found.timed)
    assert "timed by" not in worth_markdown([found], None)


def test_shortened_runs_beside_full_ones_are_left_to_the_whole_leaderboard() -> None:
    full, short = make_record(), [make_record(scope="short", seed=seed, test=300.0) for seed in (2, 3)]
    board = build([full, *short], [])
    assert "300.00" in markdown(board)
    brief = markdown(board, "records", 40)
    assert "300.00" not in brief
    assert short[0].run_key[:8] not in brief
    assert "\n\n2 shortened runs are in results/LEADERBOARD.md.\n\n" in brief
    assert "\n\nOne shortened run is in results/LEADERBOARD.md.\n\n" in markdown(build([full, short[0]], []), "r", 40)
    assert "300.00" in markdown(build(short, []), "records", 40), "there is nothing else to show"


def test_nothing_to_say_is_said_as_nothing() -> None:
    assert worth_markdown([]) == ""
    assert averaging_markdown(group([make_record()])) == ""


def test_starts_that_show_the_same_lowest_figure_share_it() -> None:
    scores = {"ppl": 56.004, "ppl@200": 56.0, "ppl@nt": 56.1}
    recipe = {"averaging": {"trigger": "epoch", "epoch": 200}}
    run = make_record(metrics={"train": {"test": scores}}, recipe=recipe)
    assert "| the recipe's own start, epoch 200 |" in averaging_markdown(group([run]))


def test_a_start_that_not_every_seed_reached_is_not_the_lowest() -> None:
    scores = {"ppl": 58.0, "ppl@nt": 50.0}
    runs = [
        make_record(seed=seed, metrics={"train": {"test": found}}) for seed, found in ((1, scores), (2, {"ppl": 58.2}))
    ]
    text = averaging_markdown(group(runs))
    assert "50.00 (1)" in text
    assert "| the recipe's own start |" in text.splitlines()[-4], text


def test_an_average_stands_beside_what_sources_print_of_its_start() -> None:
    scores = {"ppl": 57.5, "ppl@nt": 58.0, "ppl@200": 57.5}
    run = make_record(
        head="softmax", task="parthiban2021-ptb", protocol="et-asgd-200", metrics={"train": {"test": scores}}
    )
    text = averaging_markdown(group([run]), published=load_published())
    titles, _, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[4:7])
    row = dict(zip(titles, values, strict=True))
    assert row["the non-monotone trigger"] == "58.00 (1)"
    assert row["published, the non-monotone trigger"] == "58.07 Parthiban et al. 2021, table S10"
    assert row["published, epoch 200"].startswith("57.08 ± 0.09 (11) Parthiban et al. 2021, table 2; 57.10 ")
    assert "published, the recipe's own start" not in row
    other = make_record(head="softmax", task="mine", protocol="et-asgd-200", metrics={"train": {"test": scores}})
    assert "58.07" not in averaging_markdown(group([other]), published=load_published()), "another recipe"


def test_every_page_is_written_and_the_readme_keeps_its_own_words(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    blocks = ("leaderboard", "answered", "claims", "heads")
    readme.write_text(
        "# Mine\n" + "".join(f"\n<!-- {name}:begin -->\n<!-- {name}:end -->\nafter {name}\n" for name in blocks)
    )
    results = tmp_path / "out"
    (results / "records").mkdir(parents=True)
    records = sample()
    report = Report(results, records, load_published(), {}, CLAIMS)
    written = [path.relative_to(tmp_path).as_posix() for path in report.write([readme])]
    assert written == [
        "out/LEADERBOARD.md",
        "out/CLAIMS.md",
        "out/COSTS.md",
        "out/HEADS.md",
        "out/REPRODUCE.md",
        "out/leaderboard.csv",
        "out/leaderboard.tex",
        "out/site/index.html",
        "README.md",
    ]
    text = readme.read_text()
    assert text.startswith("# Mine\n")
    assert all(f"<!-- {name}:end -->\nafter {name}\n" in text for name in blocks)
    assert "| MoS beats a softmax." in text
    assert f"]: out/records/{file_name(records[0])}\n" in text, "links lead from where the README stands"
    first = {path: (tmp_path / path).read_bytes() for path in written}
    assert list(report.write([readme]))
    assert {path: (tmp_path / path).read_bytes() for path in written} == first
    # A README without a place for them is given none.
    readme.write_text("<!-- leaderboard:begin -->\n<!-- leaderboard:end -->\n")
    assert list(report.write([readme]))
    assert "MoS beats" not in readme.read_text()


def test_every_published_number_has_its_row_and_a_status() -> None:
    published = load_published()
    board = build([], published, show="all")
    rows = [row for section in board.sections for row in section.rows if row.published]
    shown = {(row.published.dataset, row.published.method, row.published.protocol, row.published.stage) for row in rows}  # type: ignore[union-attr]
    shown |= {(o.number.dataset, o.number.method, o.number.protocol, o.number.stage) for o in board.other}
    assert shown == {(n.dataset, n.method, n.protocol, n.stage) for n in published}
    values = {
        (n.paper.key, n.dataset, n.method, n.protocol, n.stage, name, value)
        for n in published
        for name, value in n.values.items()
    }
    told = set()
    for section in board.sections:
        for row in section.rows:
            assert row.published is not None
            n = row.published
            names = [f"{split}.{section.metric}" for split in section.splits]
            told |= {
                (n.paper.key, n.dataset, n.method, n.protocol, n.stage, x, n.values[x]) for x in names if x in n.values
            }
            assert row.verdict in ("not run", "data not available")
    for other in board.other:
        n = other.number
        told |= {
            (n.paper.key, n.dataset, n.method, n.protocol, n.stage, name, value) for name, value, *_ in other.values
        }
        assert other.status in ("not run", "data not available")
    assert told == values
    assert {row.published.dataset for row in rows if row.verdict == "data not available"} == {"switchboard"}  # type: ignore[union-attr]


def test_the_tables_of_the_papers_are_there() -> None:
    tables: dict[str, set[str]] = {}
    for number in load_published():
        tables.setdefault(number.paper.key, set()).add(number.table)
    assert tables["yang2018"] >= {"1", "2", "3", "4", "5", "6", "7", "11", "12", "13"}
    assert tables["parthiban2021"] >= {"1", "2", "3", "4", "5", "6", "S4", "S5", "S10", "S11", "S12", "GSS grid"}
    assert {"kanai2018", "ganea2019", "krause2017", "merity2018", "melis2018"} <= tables.keys()


def test_ranks_and_slow_downs_of_ours_stand_beside_the_published_ones() -> None:
    published = [n for n in load_published() if n.paper.key == "yang2018" and n.table in ("6", "13")]
    ranked = {"train": {"test": {"ppl": 56.0, "rank": 10000.0, "rank_press": 9980.0}}}
    records = [
        make_record(metrics=ranked),
        make_record(head="softmax", protocol="speed-same-batch", costs={"seconds_per_epoch": 2.0}),
        make_record(head="mos-15", protocol="speed-same-batch", costs={"seconds_per_epoch": 3.8}),
    ]
    found = {
        (row.number.protocol, row.number.head, name): (ours.mean, said)
        for row in build(records, published, show="all").other
        if row.number.dataset == "ptb"
        for name, _, ours, said in row.values
    }
    assert found["nt-asgd", "mos-15", "test.rank"] == (9980.0, "single run")
    assert found["speed-same-batch", "mos-15", "train.slowdown"] == (1.9, "single run")
    assert found["speed-same-batch", "mos-10", "train.slowdown"] == (None, None)
    assert found["nt-asgd", "softmax", "test.rank"] == (None, None)


def test_a_cell_knows_its_labels() -> None:
    (cell,) = group([make_record(head="plif")])
    assert isinstance(cell, Cell)
    assert (cell.encoder, cell.head, cell.method) == ("awd-lstm", "plif", "awd-lstm/plif")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        raise SystemExit("usage: python tests/report/test_pages.py --update")
    for golden, text in golden_texts().items():
        GOLDEN[golden].write_text(text, encoding="utf-8")


def test_ranks_at_every_threshold() -> None:
    assert ranks_markdown(group([make_record()])) == ""
    ranks = [
        {"rank": 8.0, "rank_1e-3": 7.0, "rank_press_float32": 128.0, "rank_eps_trap": 128.0, "experts_used": 2.71828},
        {"rank": 10.0},
    ]
    records = [
        make_record(seed=seed, stages=("train", "rank"), metrics={"train": SCORES, "rank": {"test": values}})
        for seed, values in enumerate(ranks)
    ]
    lines = [line for line in ranks_markdown(group(records)).splitlines() if line.startswith("|")]
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    shown = dict(zip(head, row, strict=True))
    assert shown["float64"] == "9 ± 1.4 (2)"
    assert (shown["1e-3"], shown["Press, float32"], shown["log(p + 1e-8)"]) == ("7 (1)", "128 (1)", "128 (1)")
    assert shown["experts used"] == "2.72 (1)"
    assert "1e-5" not in shown, "a threshold that nobody took has no column"
