"""Costs side by side, as ratios to the first side, with a word where one does not count."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.records.record import Costs, Record
from suite.report import formatting
from suite.report.cells import costs, measured
from suite.report.sides import Side

_ROWS: Mapping[str, Callable[[Costs], float | None]] = {
    "seconds an epoch": lambda took: took.seconds_per_epoch,
    "joules an epoch": lambda took: took.joules_per_epoch,
    "tokens a second": lambda took: took.tokens_per_second,
    "seconds of training": lambda took: took.seconds.get("train"),
    "seconds in all": lambda took: took.seconds.get("total"),
    "joules in all": lambda took: took.energy_joules,
}
_PEAK = "peak MiB"
_ALLOCATED = "allocated MiB"
_OF_THE_BUDGET = ("seconds of training", "seconds in all", "joules in all")


@dataclass(frozen=True)
class SideCosts:
    """What a side's runs took: medians, and the highest peak of memory; ``why`` says why none of it counts.

    ``sure`` is False where no run could tell whether it was alone on the machine.
    """

    values: Mapping[str, float]
    why: str
    sure: bool
    kind: str
    device: str
    versions: frozenset[str | None]
    peak_of: str
    budget: Any


def side_costs(records: Sequence[Record]) -> SideCosts:
    """The costs of some runs, by those that had the machine alone where there are any, else by all of them."""
    device, counted, sure = measured(records)
    having = [record for record in records if record.costs]
    why = "" if counted else _why_not(having)
    used = [record.costs for record in counted or having if record.costs]
    values = {}
    for name, read in _ROWS.items():
        found = [value for took in used if (value := read(took)) is not None]
        if found:
            values[name] = statistics.median(found)
    peak = costs(records)
    if peak.peak_mib is not None:
        values[_PEAK] = peak.peak_mib
    if peak.allocated_mib is not None:
        values[_ALLOCATED] = peak.allocated_mib
    environments = [r.environment for r in counted or having or records if r.environment]
    return SideCosts(
        values=values,
        why=why,
        sure=sure,
        kind=environments[0].device_kind if environments else "",
        device=device or "",
        versions=frozenset(record.step_version for record in counted or having),
        peak_of=peak.peak_source,
        budget=records[0].spec.get("recipe", {}).get("budget"),
    )


def _why_not(having: Sequence[Record]) -> str:
    if not having:
        return "not measured"
    return "packed" if any(r.costs and r.costs.packed for r in having) else "machine was shared"


def cost_rows(sides: Sequence[Side]) -> list[list[str]]:
    """A row a cost: its name, the value of every side, and the ratio of every side but the first to the first."""
    took = [side_costs(side.records) for side in sides]
    rows = []
    for name in (*_ROWS, _PEAK, _ALLOCATED):
        if not any(name in one.values for one in took):
            continue
        values = [_value(one, name) for one in took]
        rows.append([name, *values, *(_ratio(one, took[0], name) for one in took[1:])])
    return rows


def _value(one: SideCosts, name: str) -> str:
    if name not in one.values:
        return formatting.DASH
    said = formatting.cost(one.values[name]) + (f" ({one.peak_of})" if name == _PEAK else "")
    return f"({said})" if one.why else said


def _ratio(one: SideCosts, base: SideCosts, name: str) -> str:
    """``1.77 x``, or the word that says why there is none."""
    for side in (base, one):
        if side.why:
            return side.why
    if name not in one.values or name not in base.values:
        return formatting.DASH
    if one.kind != base.kind:
        return "CPU against GPU"
    if one.device != base.device:
        return "other device"
    if name == _PEAK and one.peak_of != base.peak_of:
        return "measured otherwise"
    if name in _OF_THE_BUDGET and one.budget != base.budget:
        return "other budget"
    if not base.values[name]:
        return formatting.DASH
    ratio = f"{'' if one.sure and base.sure else '~'}{formatting.cost(one.values[name] / base.values[name])} x"
    return ratio if one.versions & base.versions else f"{ratio}, other code"
