"""The table of costs: a row of the file is a row of the table, and README takes it between its own markers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.errors import InputError
from suite.report.costs import (
    costs_markdown,
    heads_markdown,
    recurrence_markdown,
    stages_markdown,
    training_markdown,
)
from suite.report.files import has_block, update_block

SIZES = {"N": 840, "K": 15, "d": 280, "V": 10_000}
ROWS = [
    {"shape": "ptb", **SIZES, "form": "materialised", "dtype": "tf32", "ms": 3.697, "peak_mib": 1955.8},
    {"shape": "ptb", **SIZES, "form": "one pass", "dtype": "bfloat16", "ms": 12.34, "peak_mib": 94.1},
    {"shape": "ptb", **SIZES, "form": "other", "dtype": "bfloat16", "failed": "out of memory"},
]


def written(path: Path) -> Path:
    path.write_text(json.dumps({"device": "a GPU", "torch": "2.11", "rows": ROWS}))
    return path


def test_every_row_and_its_costs(tmp_path: Path) -> None:
    table = heads_markdown(written(tmp_path / "heads.json"))
    assert "one a GPU with torch 2.11" in table
    assert "**N = 840, K = 15, d = 280, V = 10,000**" in table
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert cells[2:] == [
        ["materialised", "TF32", "3.70", "1,956"],
        ["one pass", "bfloat16", "12.3", "94"],
        ["other", "bfloat16", "does not run", "-"],
    ]


def test_the_block_has_markers_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("<!-- leaderboard:begin -->\nkept\n<!-- leaderboard:end -->\n")
    assert not has_block(path, "costs")
    path.write_text(path.read_text() + "<!-- costs:begin -->\nold\n<!-- costs:end -->\nafter\n")
    assert has_block(path, "costs")
    assert update_block(path, "new", name="costs")
    assert path.read_text().endswith("<!-- costs:begin -->\nnew\n<!-- costs:end -->\nafter\n")
    assert "kept" in path.read_text()


def test_a_file_of_something_else_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text('{"rows": []}')
    with pytest.raises(InputError) as caught:
        heads_markdown(path)
    assert str(caught.value) == (
        f"{path}: cannot be read as a benchmark of heads (KeyError: 'device'); run make bench-gpu again"
    )


def test_a_brief_table_keeps_what_stands_beside_its_peers(tmp_path: Path) -> None:
    table = heads_markdown(written(tmp_path / "heads.json"), brief=True)
    assert "| one pass |" in " ".join(table.split())
    assert "materialised" not in table


def test_training_steps(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks" / "training.json"
    assert costs_markdown(tmp_path) == ""
    path.parent.mkdir()
    row = {"case": "MoS", "precision": "float16/tf32", "ms_per_step": 3.456, "seconds_per_epoch": 3.9}
    rows = [
        {**row, "validation_seconds": 0.5, "gpu_peak_mib": 3518},
        {**row, "case": "MoS, packed", "validation_seconds": 0.5},
        {"case": "other", "failed": "out of memory"},
    ]
    path.write_text(json.dumps({"device": "a GPU", "torch": "2.11", "commit": "0123456789", "rows": rows}))
    table = training_markdown(path)
    assert costs_markdown(tmp_path) == table
    assert "on one a GPU with torch 2.11 at commit 0123456;" in table
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert cells[2:] == [
        ["MoS", "float16/TF32", "3.46", "3.90", "0.50", "3,518"],
        ["MoS, packed", "float16/TF32", "3.46", "3.90", "0.50", "-"],
        ["other", "", "does not run", "", "", ""],
    ]
    path.write_text('{"device": "a GPU", "torch": "2.11", "rows": [{}]}')
    with pytest.raises(InputError) as caught:
        training_markdown(path)
    assert str(caught.value) == (
        f"{path}: cannot be read as a benchmark of training (KeyError: 'case'); run make bench-train again"
    )


def lines(table: str) -> list[list[str]]:
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[2:]]


def test_stages_and_recurrences(tmp_path: Path) -> None:
    where = {"device": "a GPU", "torch": "2.11", "commit": "0123456789"}
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    stages = [{"stage": "rank", "seconds": 24.87, "allocator_peak_mib": 1745}]
    (folder / "stages.json").write_text(json.dumps({**where, "rows": stages}))
    row = {"stack": "mos", "products": "tf32", "cudnn": 7.1, "own": 1.698, "own, half of the GPU": 1.9}
    recurrences = [row, {**row, "commit": "fedcba98765"}]
    (folder / "recurrence.json").write_text(json.dumps({**where, "rows": recurrences}))
    assert lines(stages_markdown(folder / "stages.json")) == [["rank", "24.9", "1,745"]]
    assert lines(recurrence_markdown(folder / "recurrence.json")) == [
        ["mos", "TF32", "7.10", "1.70", "1.90"],
        ["mos (at commit fedcba9)", "TF32", "7.10", "1.70", "1.90"],
    ]
    assert len(lines(costs_markdown(tmp_path))) == 5  # a heading and its rule between the two
    assert len(lines(costs_markdown(tmp_path, brief=True))) == 1


@pytest.mark.parametrize("table", [stages_markdown, recurrence_markdown])
def test_what_is_no_such_benchmark_is_named(tmp_path: Path, table: Callable[[Path], str]) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"device": "a GPU", "torch": "2.11", "rows": [{}]}')
    with pytest.raises(InputError, match=r"some\.json: cannot be read as a benchmark of .* run tests/bench/.* again"):
        table(path)
