"""Which cells are set side by side, against the plain definition; and how long thousands of them take."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from counted import calls_of
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.records.published import load_published
from suite.report.cells import Cell
from suite.report.claims import load_claims
from suite.report.grouping import flatten, group
from suite.report.pages import Report
from suite.report.pairing import Apart, Share, pairs
from suite.spec.run_spec import canonical_json

RUNS = st.lists(
    st.tuples(
        st.sampled_from(["ptb", "text8"]),
        st.sampled_from(["lstm", "awd-lstm"]),
        st.sampled_from(["softmax", "mos-15", "mos-10"]),
        st.sampled_from([20.0, 20, 30.0]),
        st.sampled_from(["float32", "tf32"]),
        st.sampled_from([1.0, 2.0]),
    ),
    min_size=1,
    max_size=14,
)


def cells_of(runs: Sequence[tuple[str, str, str, float, str, float]]) -> list[Cell]:
    return group(
        make_record(
            dataset=dataset,
            encoder=encoder,
            head=head,
            recipe={
                "optimizer": {"name": "sgd", "lr": lr},
                "precision": {"recurrence": precision, "head": precision},
            },
            dataset_options={"size": size},
        )
        for dataset, encoder, head, lr, precision, size in runs
    )


def distance(one: Cell, two: Cell) -> int:
    specs = [dict(flatten(cell.records[0].spec)) for cell in (one, two)]
    return sum(specs[0].get(key) != specs[1].get(key) for key in specs[0].keys() | specs[1].keys())


def shared(one: Cell, two: Cell, what: Share) -> bool:
    if what in ("dataset", "encoder"):
        return bool(one.records[0].spec[what] == two.records[0].spec[what])
    if what == "encoder-name":
        return bool(one.records[0].spec["encoder"]["name"] == two.records[0].spec["encoder"]["name"])
    return one.encoder == two.encoder if what == "encoder-label" else one.precision == two.precision


@given(
    runs=RUNS,
    than=st.sampled_from(["softmax", "mos-*", "none"]),
    same=st.lists(st.sampled_from(["dataset", "encoder", "encoder-label", "encoder-name", "precision"]), unique=True),
)
def test_each_cell_is_paired_with_the_one_most_like_it(runs, than: str, same: list[Share]) -> None:
    cells, heads = cells_of(runs), ["mos-1?", "softmax"]
    expected = []
    for cell in cells:
        partners = [
            other
            for other in cells
            if other is not cell
            and other.key == cell.key
            and fnmatchcase(other.head, than)
            and all(shared(cell, other, what) for what in same)
        ]
        if partners:
            nearest = min(partners, key=lambda other: (distance(cell, other), other.records[0].run_key))
            expected.append((cell, nearest))
    apart = Apart()
    for _ in range(2):  # what was kept changes nothing
        found = list(pairs(cells, heads, than, same, apart))
        assert [(id(a), id(b)) for a, b in found] == [(id(a), id(b)) for a, b in expected]


@pytest.mark.parametrize("value", [0, -7, 2**70, True, None, 20.0, 1e-8, 1e22, -0.0, 0.1, [1, 2.5], [], {}, "a", ""])
def test_values_are_told_as_in_a_record(value: object) -> None:
    ((_, text),) = flatten({"key": value})
    assert text == (value if isinstance(value, str) else canonical_json(value))


def calls_of_a_report(results: Path, runs: int) -> int:
    """Function calls of all pages of so many runs, each a cell of its own."""
    draw = random.Random(1)
    records = [
        make_record(
            dataset="ptb",
            encoder=("awd-lstm", "lstm")[number // 4 % 2],
            head=("softmax", "mos-15", "sigsoftmax", "plif")[number % 4],
            seed=number,
            test=draw.uniform(50, 60),
            recipe={"optimizer": {"name": "sgd", "lr": 20 + number / 100}},
        )
        for number in range(runs)
    ]
    published = load_published()
    report = Report(results, records, published, {}, load_claims(published))
    pages: list[object] = []
    calls = calls_of(lambda: pages.extend(report.write()))
    assert len(pages) == 8
    return calls


def test_a_report_of_thousands_of_recipes_is_quick(tmp_path: Path) -> None:
    # 2,000 take three seconds; each run set against each would take four times the calls.
    assert calls_of_a_report(tmp_path, 200) < 2.5 * calls_of_a_report(tmp_path, 100)
