"""What the training loop says and sees while it runs."""

from __future__ import annotations

import math
import re
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import ADAMW_TASK, TEXT_TASK, cell, run, run_in_pieces

from suite.measurement.energy import EnergyMeter
from suite.records.record import Record
from suite.records.store import Store
from suite.training import loop
from suite.training.probe import LossProbe
from suite.training.step import EagerStep
from suite.training.validation import Validation


def test_on_a_cpu_the_probe_reads_at_once() -> None:
    total = torch.zeros((), dtype=torch.float64)
    probe = LossProbe(total)
    assert probe.read(0) == probe.latest == 0.0
    total += 6.0
    assert probe.read(4) == 1.5
    total += 2.0
    assert probe.latest == 1.5, "only a reading looks"
    assert probe.read(5) == probe.latest == 1.6


def test_a_loss_that_is_no_number_reaches_the_loop_at_once(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK.replace("lr: 5,", "lr: 1.0e+38,").replace("clip: 0.25", "clip: null"))
    record = run(Store(tmp_path / "results"), spec)
    assert record.status == "diverged"
    assert record.message is not None
    found = re.fullmatch(r"the training loss is not finite at step (\d+) \(epoch 1\)", record.message)
    assert found is not None
    assert 2 <= int(found[1]) < 6


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (TEXT_TASK, r"  epoch {}/3  train ppl \d+\.\d{{3}}  valid ppl \d+\.\d{{3}}  [\d,]+ tokens/s{}"),
        (ADAMW_TASK, r"  epoch {}/4  valid kl \d+\.\d{{3}}  [\d,]+ contexts/s{}"),
    ],
    ids=["text", "distributions"],
)
def test_every_epoch_leaves_one_line(tmp_path: Path, task: str, line: str) -> None:
    record = run(Store(tmp_path / "results"), cell(tmp_path, task))
    lines = [text for text in (tmp_path / "log").read_text().splitlines() if text.startswith("  epoch ")]
    assert len(lines) == len(record.curves)
    for point, text in zip(record.curves, lines, strict=True):
        averaged = "  averaged" if point["averaged"] else ""
        assert re.fullmatch(line.format(int(point["epoch"]), averaged), text), text


def test_evaluations_may_be_rarer_than_epochs_and_the_last_is_never_left_out(tmp_path: Path) -> None:
    task = TEXT_TASK.replace("epochs: 3", "epochs: 5") + "  evaluation: {every_epochs: 2}\n"
    record = run(Store(tmp_path / "results"), cell(tmp_path, task))
    assert [point["epoch"] for point in record.curves] == [2, 4, 5]


def test_a_budget_of_steps_ends_within_an_epoch(tmp_path: Path) -> None:
    task = TEXT_TASK.replace("budget: {epochs: 3}", "budget: {epochs: 3, steps: 4}")
    record = run(Store(tmp_path / "results"), cell(tmp_path, task))
    (point,) = record.curves
    assert point["step"] == 4
    assert record.costs is not None
    assert record.costs.seconds_per_epoch is None, "part of an epoch is no epoch's time"
    assert record.costs.tokens_per_second is not None


class Counter:
    """A GPU's counter of energy that moves by 3 J a step and 100 J a validation."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shown = 1000.0
        patch.setattr(EnergyMeter, "joules", lambda _: self.shown)
        patch.setattr(EagerStep, "__call__", self._moved(EagerStep.__call__, 3.0))
        patch.setattr(Validation, "score", self._moved(Validation.score, 100.0))

    def _moved(self, work: Any, joules: float) -> Any:
        def counted(*arguments: Any) -> Any:
            self.shown += joules
            return work(*arguments)

        return counted


def joules_an_epoch(record: Record) -> float | None:
    assert record.costs is not None
    return record.costs.joules_per_epoch


def test_the_energy_of_an_epoch_is_that_of_its_steps_whatever_interrupts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    spec = cell(tmp_path, TEXT_TASK)
    short = run(Store(tmp_path / "short" / "results"), spec)
    assert joules_an_epoch(short) is None, "epochs shorter than the counter can tell"
    monkeypatch.setattr(loop, "_SHORTEST_COUNTED_S", 0.0)
    whole = run(Store(tmp_path / "whole" / "results"), spec)
    steps = [later["step"] - earlier["step"] for earlier, later in pairwise(whole.curves)]
    assert joules_an_epoch(whole) == pytest.approx(3.0 * statistics.median(steps))
    pieces, stops = run_in_pieces(Store(tmp_path / "parts" / "results"), spec)
    assert stops > 3
    assert joules_an_epoch(pieces) == joules_an_epoch(whole)
    counter.shown = math.nan
    assert joules_an_epoch(run(Store(tmp_path / "away" / "results"), spec)) is None
