"""Measurements set beside their baseline: one finding a number, and what it says."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from suite.gate.baseline import Baseline, Cell, Learned, Quality, Ratio
from suite.gate.measured import Measured
from suite.report.formatting import DASH, metric


class Verdict(StrEnum):
    """``SKIPPED``: another torch or processor calls other operations, so their numbers say nothing."""

    HOLDS = "ok"
    MOVED = "MOVED"
    SKIPPED = "not compared"


@dataclass(frozen=True)
class Finding:
    """One number of one cell; ``allowed`` is what the baseline lets it be, ``change`` against what was learned."""

    task: str
    cell: str
    what: str
    allowed: str
    now: str
    change: str
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """``heads ptb lstm/softmax: train test ppl +3.1 % (10.31, allowed 9.9 to 10.1)``."""
        change = f" {self.change}" if self.change != DASH else ""
        return f"{self.task} {self.cell}: {self.what}{change} ({self.now}, allowed {self.allowed})"


def compare(task: str, baseline: Baseline, measured: Sequence[Measured], here: Learned) -> list[Finding]:
    """A finding for every number of the baseline, and for every cell that only one side has.

    Args:
        task: its name.
        baseline: what was learned.
        measured: the cells of now.
        here: on what they were measured.
    """
    same = baseline.learned[0].counts_as(here)
    found: list[Finding] = []
    for one in measured:
        known = baseline.cell(one.cell)
        if known is None:
            found.append(Finding(task, one.cell, "the cell", "none", "is new", DASH, Verdict.MOVED))
        else:
            found += _Cell(task, known, one).findings(same)
    for gone in [cell.cell for cell in baseline.cells if cell.cell not in {one.cell for one in measured}]:
        found.append(Finding(task, gone, "the cell", "one", "is gone", DASH, Verdict.MOVED))
    return found


@dataclass(frozen=True)
class _Cell:
    task: str
    known: Cell
    now: Measured

    def findings(self, same_torch: bool) -> Iterator[Finding]:
        known, cost = self.known, self.now.cost
        if self.now.failure is not None:
            yield self._finding("the run", "finished", self.now.failure, DASH, False)
        else:
            yield from map(self._quality, known.quality)
        yield self._exact("parameters", known.parameters, cost.parameters)
        yield self._exact("parameters of the head", known.head_parameters, cost.head_parameters)
        yield self._exact("operations a step", known.operations, cost.operations, same_torch)
        yield self._exact("floating-point operations a step", known.flops, cost.flops, same_torch)
        yield self._ratio("step time / yardstick", known.step_time, cost.time)
        yield self._ratio("step memory / yardstick", known.step_memory, cost.memory)

    def _finding(self, what: str, allowed: str, now: str, change: str, holds: bool) -> Finding:
        verdict = Verdict.HOLDS if holds else Verdict.MOVED
        return Finding(self.task, self.now.cell, what, allowed, now, change, verdict)

    def _quality(self, known: Quality) -> Finding:
        what, name = known.metric.replace(".", " "), known.metric.rsplit(".", 1)[-1]
        allowed = f"{metric(known.low, name)} to {metric(known.high, name)}"
        values = self.now.quality.get(known.metric)
        if values is None:
            return self._finding(what, allowed, "is not measured", DASH, False)
        mean = statistics.fmean(values)
        change = _percent(mean, statistics.fmean(known.values))
        return self._finding(what, allowed, metric(mean, name), change, known.low <= mean <= known.high)

    def _exact(self, what: str, known: int, now: int, comparable: bool = True) -> Finding:
        found = self._finding(
            what, f"{known:,}", f"{now:,}", f"{now - known:+,}" if now != known else "0", now == known
        )
        if comparable:
            return found
        return Finding(found.task, found.cell, what, found.allowed, found.now, found.change, Verdict.SKIPPED)

    def _ratio(self, what: str, known: Ratio, now: float) -> Finding:
        allowed = f"at most {known.at_most:.2f}"
        return self._finding(what, allowed, f"{now:.2f}", _percent(now, known.ratio), now <= known.at_most)


def _percent(now: float, before: float) -> str:
    text = f"{100 * (now / before - 1):+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text
