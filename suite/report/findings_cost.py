"""Findings about time: how many times as long one head takes as another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import Cell, had_machine
from suite.report.claims import CostRatio
from suite.report.evidence import Evidence, Finding, Outcome, about
from suite.report.pairing import matches, pairs, time_ratio, timed


def cost_ratio(rule: CostRatio, evidence: Evidence) -> Iterator[Finding]:
    """Ratios from runs that may be compared, the others with the reason why they may not; then those of benchmarks."""
    cells, apart = evidence.with_short, evidence.apart
    # The most similar partner has the same batch, where any has.
    fair = {id(cell): other for cell, other in pairs(cells, rule.heads, rule.than, [*rule.same, "batch"], apart)}
    for cell, other in pairs(cells, rule.heads, rule.than, rule.same, apart):
        partner = fair.get(id(cell), other)
        if matches(cell.key.dataset, rule.datasets) and _measured(cell.records) and _measured(partner.records):
            yield _of_runs(rule, cell, partner, fairly=id(cell) in fair)
    for row, other_row, unit in _benchmark_pairs(rule, evidence.benchmarks):
        numbers = (float(row[unit]), float(other_row[unit]))
        what = ", ".join(str(row[key]) for key in ("precision", "device") if key in row)
        ratio = numbers[0] / numbers[1]
        text = f"{_ratio(row['head'], other_row['head'], ratio, numbers, unit.replace('_', ' '))}, {what}".rstrip(", ")
        yield Finding(f"{row['dataset']} · {row['file']}", text, _within(rule, ratio))


def _of_runs(rule: CostRatio, cell: Cell, other: Cell, fairly: bool) -> Finding:
    found = time_ratio(cell.records, other.records)
    if found is None or not fairly:
        text = f"{cell.head} / {other.head}: not comparable"
        return about(cell, text, Outcome.OPEN, other.records, _why_not(cell, other, fairly))
    text = f"{_ratio(cell.head, other.head, found.ratio, (found.mine, found.base), found.unit)}, {found.device}"
    if not found.sure:
        return about(cell, text, Outcome.OPEN, other.records, "no run could tell whether it was alone on the machine")
    return about(cell, text, _within(rule, found.ratio), other.records)


def _why_not(cell: Cell, other: Cell, fairly: bool) -> str:
    if not fairly:
        batches = (str(one.records[0].spec["recipe"].get("batch_size")) for one in (cell, other))
        return f"batches of {' and '.join(batches)}"
    if not all(any(timed(record) for record in one.records) for one in (cell, other)):
        return "the only epoch that was timed is the first, which warms up"
    return "times of different devices or versions of the code"


def _measured(records: Sequence[Record]) -> bool:
    """Whether any run that had the machine alone took the time."""
    took = [record.costs for record in records if had_machine(record)]
    return any(cost and (cost.seconds_per_epoch or cost.tokens_per_second) for cost in took)


def _ratio(head: str, than: str, ratio: float, numbers: tuple[float, float], unit: str) -> str:
    shown = " over ".join(formatting.cost(number) for number in numbers)
    return f"{head} / {than}: {formatting.cost(ratio)} times ({shown} {unit})"


def _within(rule: CostRatio, ratio: float) -> Outcome:
    return Outcome.HOLDS if rule.low <= ratio <= rule.high else Outcome.FAILS


def _benchmark_pairs(
    rule: CostRatio, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """Rows of one file that differ in their head alone among what is said in words."""
    units = ("seconds_per_epoch", "ms_per_step")

    def words(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if isinstance(value, str) and key != "head"}

    for row in rows:
        if not (matches(str(row["head"]), rule.heads) and matches(str(row["dataset"]), rule.datasets)):
            continue
        for other in rows:
            unit = next((name for name in units if row.get(name) and other.get(name)), None)
            if unit and fnmatchcase(str(other["head"]), rule.than) and words(row) == words(other):
                yield row, other, unit
                break
