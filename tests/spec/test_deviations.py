"""Deviations from the published recipe: checked like the rest of a task file, and never part of a run's key."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.errors import InputError
from suite.spec.plan import expand
from suite.spec.task import Deviation, load_task

TASK = """\
title: t
version: 1
protocol: p
dataset: {name: hidden-markov, vocabulary: 20, states: 6}
encoder: {name: lstm, embedding: 6, hidden: [8], tied: false}
heads: [{name: softmax, dimension: 3}, {name: mos, experts: 2, dimension: 3}]
seeds: [1]
"""
DECLARED = """\
deviations:
  - {what: TF32 products., why: Speed., effect: None seen., touches: mos-*}
  - {what: Fewer epochs., why: Time., effect: At most +0.1 expected.}
"""


def write(folder: Path, text: str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_they_are_read_and_leave_every_run_key_alone(tmp_path: Path) -> None:
    plain, declared = (load_task(write(tmp_path, text)) for text in (TASK, TASK + DECLARED))
    assert plain.deviations == ()
    assert [deviation.what for deviation in declared.deviations] == ["TF32 products.", "Fewer epochs."]
    assert [spec.run_key for spec in expand(plain)] == [spec.run_key for spec in expand(declared)]


def test_a_child_replaces_those_of_its_parent(tmp_path: Path) -> None:
    write(tmp_path, TASK + DECLARED, "parent.yaml")
    child = "extends: parent.yaml\n"
    assert len(load_task(write(tmp_path, child)).deviations) == 2
    assert load_task(write(tmp_path, child + "deviations: []\n")).deviations == ()


NAMED = """\
deviations:
  precision: {what: TF32 products., why: Speed., effect: None seen., touches: mos-*}
  budget: {what: Fewer epochs., why: Time., effect: Small.}
"""


def test_a_child_keeps_replaces_and_drops_named_ones(tmp_path: Path) -> None:
    write(tmp_path, TASK + NAMED, "parent.yaml")
    child = """\
extends: parent.yaml
deviations:
  precision: {what: float16 products.}
  budget: null
  seed: {what: Another seed., why: Theirs is not told., effect: None.}
"""
    found = load_task(write(tmp_path, child)).deviations
    assert found == (
        Deviation(what="float16 products.", why="Speed.", effect="None seen.", touches="mos-*"),
        Deviation(what="Another seed.", why="Theirs is not told.", effect="None."),
    )
    # A list has no names to merge by.
    (only,) = load_task(
        write(tmp_path, "extends: parent.yaml\n" + DECLARED.splitlines(True)[0] + DECLARED.splitlines(True)[2])
    ).deviations
    assert only.what == "Fewer epochs."


@pytest.mark.parametrize(
    ("touches", "head", "touched"),
    [
        ("*", "softmax", True),
        ("mos-*", "mos-15", True),
        ("mos-*", "softmax", False),
        ("awd-lstm", "softmax", True),
        ("awd-lstm/mos-*", "mos-15", True),
        ("lstm/*", "mos-15", False),
    ],
)
def test_what_a_deviation_touches(touches: str, head: str, touched: bool) -> None:
    deviation = Deviation(what="a", why="b", effect="c", touches=touches)
    assert deviation.touches_row("awd-lstm", head) is touched


def test_a_deviation_of_some_stages_touches_their_rows_alone() -> None:
    deviation = Deviation(what="a", why="b", effect="c", touches="mos-*", stages=["cache", "rank"])
    assert [stage for stage in ("train", "rank", "cache", None) if deviation.touches_row("lstm", "mos-15", stage)] == [
        "rank",
        "cache",
        None,
    ]
    assert not deviation.touches_row("lstm", "softmax", "rank")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "deviations: none\n",
            "deviations: expected a list of mappings, or a mapping of them by name, got 'none' (default [])",
        ),
        ("deviations: {clip: much}\n", "deviations.clip: expected a mapping, got 'much'"),
        ("deviations: {clip: {what: a, why: b}}\n", "deviations.clip.effect: missing; expected non-empty text"),
        (
            "deviations:\n  - {what: a, why: b}\n",
            "deviations[0].effect: missing; expected non-empty text",
        ),
        (
            "deviations:\n  - {what: a, why: b, effect: c, touch: d}\n",
            "deviations[0].touch: unknown key. Did you mean 'touches'?",
        ),
        (
            "deviations: {clip: {what: a, why: b, effect: c, stages: [trian]}}\n",
            "deviations.clip.stages[0]: unknown stage 'trian'. Did you mean 'train'? Allowed: cache, divergence, "
            "dynamic-evaluation, finetune, rank, train.",
        ),
        (
            "deviations: {clip: {what: a, why: b, effect: c, stages: rank}}\n",
            "deviations.clip.stages: expected a list of non-empty text, got 'rank' (default [])",
        ),
        ("deviations:\n  - {what: '', why: b, effect: c}\n", "deviations[0].what: expected non-empty text, got ''"),
    ],
)
def test_what_is_wrong_with_a_deviation(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_task(write(tmp_path, TASK + text))
    (problem,) = caught.value.problems
    assert problem.where.startswith(f"{tmp_path / 'task.yaml'}:")
    assert f"{problem.path}: {problem.message}" == message
