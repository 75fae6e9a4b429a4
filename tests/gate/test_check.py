"""`suite check` on a task of its own: it holds, and planted regressions do not pass."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tasks import DATASET, Desk
from torch import nn

from suite.cli import main
from suite.gate import measuring
from suite.gate.baseline import read
from suite.gate.measured import Cost, Measured
from suite.gate.measuring import Bench
from suite.models.heads.head import Head
from suite.training import objectives

TASK = f"""\
title: Small enough to be checked many times
version: 1
smoke: true
protocol: gate
dataset: {DATASET}
encoder: {{name: lstm, embedding: 6, hidden: [8], tied: false}}
head: softmax
seeds: [1, 2, 3, 4, 5]
recipe: {{batch_size: 4, bptt: 20, optimizer: {{name: sgd, lr: 2}}, budget: {{epochs: 2}}}}
"""
CELL = "tiny hidden-markov lstm/softmax"


# What a step takes here, as a multiple of the yardstick's. Real times are for the gate itself: a test that took them
# would fail whenever the machine is busy. How they are taken is tested in test_numbers.py, on a clock of its own.
QUIET = 1.0


@pytest.fixture
def gate(desk: Desk, learned: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk with one task and its baseline."""
    monkeypatch.setattr(measuring, "median_ratio", lambda *work: QUIET)
    desk.write("tasks/ci/tiny.yaml", TASK)
    (desk.root / "baselines/ci").mkdir(parents=True)
    shutil.copy(learned, desk.root / "baselines/ci")
    return desk


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline of the task, learned once."""
    root = tmp_path_factory.mktemp("learned")
    (root / "tasks/ci").mkdir(parents=True)
    (root / "tasks/ci/tiny.yaml").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(measuring, "median_ratio", lambda *work: QUIET)
        assert main(["check", "--update", "--reason", "  first\nof all "]) == 0
    return root / "baselines/ci/tiny.yaml"


def last_line(out: str) -> str:
    return out.rstrip().splitlines()[-1]


def moved(said: str) -> str:
    """The pattern of a last line about one number."""
    since = r"since ([0-9a-f]{9}|an unknown commit)( with changes)? \(20\d\d-\d\d-\d\d\)"
    return rf"The gate does not hold {since}: {CELL}: {said}"


def test_what_was_just_learned_holds(gate: Desk) -> None:
    code, out, err = gate.suite("check")
    assert (code, err) == (0, "")
    assert out.count("  ok\n") == out.count(f"tiny    {CELL.removeprefix('tiny ')}") == 8
    assert last_line(out).startswith("The gate holds: 8 numbers; tiny since ")
    assert sorted(path.name for path in gate.root.iterdir()) == ["baselines", "tasks"], "runs leave nothing behind"


def test_three_percent_of_perplexity_do_not_pass(gate: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = objectives.perplexity

    def worse(*arguments: Any) -> dict[str, float]:
        scores = honest(*arguments)
        return {**scores, "ppl": 1.03 * scores["ppl"]}

    monkeypatch.setattr(objectives, "perplexity", worse)
    code, out, err = gate.suite("check")
    assert (code, err) == (1, "")
    valid, test = (
        rf"train {split} ppl \+3\.0 % \(\d+\.\d\d, allowed \d+\.\d\d to \d+\.\d\d\)" for split in ("valid", "test")
    )
    assert re.fullmatch(moved(f"{valid}, {CELL}: {test}"), last_line(out))


def test_forty_percent_of_a_step_do_not_pass(gate: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "median_ratio", lambda *work: 1.4 * QUIET)
    code, out, err = gate.suite("check")
    assert (code, err) == (1, "")
    said = r"step time / yardstick \+40\.0 % \(1\.40, allowed at most 1\.25\)"
    assert re.fullmatch(moved(said), last_line(out)), out


def test_one_parameter_more_does_not_pass(gate: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Head.__init__

    def larger(self: Head, *arguments: Any, **options: Any) -> None:
        honest(self, *arguments, **options)
        self.spare = nn.Parameter(torch.zeros(1))

    monkeypatch.setattr(Head, "__init__", larger)
    code, out, err = gate.suite("check")
    assert (code, err) == (1, "")
    said = r"parameters \+1 \(([\d,]+), allowed [\d,]+\), {0}: parameters of the head \+1 \(([\d,]+), allowed [\d,]+\)"
    # The last lines may go on: an optimiser with one more parameter may take other steps.
    assert re.match(moved(said.format(CELL)), last_line(out))


def test_learning_anew_keeps_what_was_learned_before(gate: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Cost(parameters=9, head_parameters=3, operations=7, flops=5, time=1.0, memory=0.5)
    now = Measured(
        "hidden-markov lstm/softmax", (1, 2, 3, 4, 5), {"train.test.ppl": [10.0, 10.0, 10.0, 10.0, 10.1]}, cost
    )
    monkeypatch.setattr(Bench, "measure", lambda *_: [now])
    code, out, err = gate.suite("check", "tiny", "--update", "--reason", "because: [it] 'says' so")
    assert (code, err) == (0, "")
    assert out == "baselines/ci/tiny.yaml: learned 1 cell over 5 seeds: because: [it] 'says' so\n"
    text = (gate.root / "baselines/ci/tiny.yaml").read_text()
    assert text.startswith("# What `suite check tiny` compares with. Written by")
    found = read(Path("baselines/ci/tiny.yaml"), [1, 2, 3, 4, 5])
    assert [one.reason for one in found.learned] == ["because: [it] 'says' so", "first of all"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--update",), "--update needs --reason TEXT: why the numbers may change; it is kept in the baseline"),
        (
            ("--update", "--reason", " "),
            "--update needs --reason TEXT: why the numbers may change; it is kept in the baseline",
        ),
        (("--reason", "x"), "--reason is kept with new baselines, and goes with --update"),
        (("tini",), "no task 'tini' in tasks/ci. Did you mean 'tiny'?"),
    ],
)
def test_wrong_options(gate: Desk, arguments: tuple[str, ...], error: str) -> None:
    assert gate.suite("check", *arguments) == (2, "", f"error: {error}\n")


def edited(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(change(path.read_text()))


LEARN = "`suite check tiny --update --reason TEXT`"


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (Path.unlink, f": no such baseline; learn it with {LEARN}"),
        (edited(lambda _: "- 1\n"), ":1:1: expected a mapping with learned, seeds and cells"),
        (edited(lambda t: t.replace("parameters:", "paramters:", 1)), None),
        (
            edited(lambda t: re.sub(r"seeds: .*", "seeds: [1, 2, 3, 4, 6]", t)),
            r":\d+:8: seeds: learned from \[1, 2, 3, 4, 6\], and the task now has \[1, 2, 3, 4, 5\]; "
            + re.escape(LEARN),
        ),
        (
            edited(lambda t: re.sub(r"low: [\d.]+", "low: 1e9", t, count=1)),
            r":\d+:\d+: cells\[0\]\.quality\[0\]: an interval from 1e\+09 to [\d.]+ is empty",
        ),
        (
            edited(lambda t: re.sub(r"values: \[[\d.]+, ", "values: [", t, count=1)),
            r":\d+:\d+: cells\[0\]\.quality\[0\]\.values: 4 values for 5 seeds",
        ),
    ],
)
def test_a_wrong_baseline_is_told_with_its_place(gate: Desk, spoil: Callable[[Path], None], error: str | None) -> None:
    spoil(gate.root / "baselines/ci/tiny.yaml")
    code, out, err = gate.suite("check")
    assert (code, out) == (2, "")
    if error is None:
        unknown, missing = sorted(err.splitlines())
        where = r"error: baselines/ci/tiny\.yaml:\d+:\d+: cells\[0\]\."
        found = sorted((unknown, missing), key=lambda line: "missing" in line)
        assert re.fullmatch(where + r"paramters: unknown key\. Did you mean 'parameters'\?", found[0])
        assert re.fullmatch(where + r"parameters: missing; expected a positive integer", found[1])
    else:
        assert re.fullmatch(
            r"error: baselines/ci/tiny\.yaml" + (error if "\\" in error else re.escape(error)) + "\n", err
        )


def test_without_tasks_there_is_no_gate(desk: Desk) -> None:
    assert desk.suite("check") == (2, "", "error: tasks/ci: no task files here; run the gate where the checkout is\n")
