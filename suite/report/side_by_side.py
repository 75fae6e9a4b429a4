"""Runs side by side for a terminal: what differs in their specs, their metrics, curves and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tabulate import tabulate

from suite.records.metrics import PRIMARY_METRICS
from suite.report import formatting
from suite.report.compare import Summary, difference, paired, summarize
from suite.report.grouping import differing_keys, flatten
from suite.report.pairing import with_interval
from suite.report.side_costs import cost_rows
from suite.report.side_curves import curve_lines
from suite.report.sides import Side, ranges

_SPLITS = ("valid", "test")
# Of what surrounds the run, what may explain a difference; times and commands always differ.
_SURROUNDINGS = (
    "environment.", "provenance.commit", "provenance.dirty", "provenance.step_code", "provenance.suite_version",
)  # fmt: skip
_METRICS = (
    "Differences are paired: over the seeds that both sides have, the mean with Student's 95 % interval, and their "
    "number.\nUnpaired: no seed is shared; the difference of the means with Welch's interval."
)
_OTHER_DATA = "The sides were scored on different data, so no difference is taken."
_COSTS = (
    "Medians over runs that had the machine alone, the highest peak; ~ where none could tell. In brackets: does not "
    "count.\nRatios are to side A."
)


def render(sides: Sequence[Side]) -> str:
    """Everything, for a terminal; the first side is what the others are set against."""
    compared = same_data(sides)
    parts = [_table(["", "run", "seeds", "status", "device", "commit", "keys"], [_heading(side) for side in sides])]
    parts.append(_specs(sides))
    surroundings = _surroundings(sides)
    if surroundings:
        parts.append(f"Machine and code differ in\n{_table(['', *_letters(sides)], surroundings)}")
    parts.append(_metrics(sides, compared))
    lines, header, rows = curve_lines(sides, compared)
    if rows:
        parts.append("\n".join([f"Curves, {lines[0]}", *lines[1:], "", _table(header, rows, numbers=True)]))
    costs = cost_rows(sides)
    if costs:
        header = ["", *_letters(sides), *(f"{side.letter} / {sides[0].letter}" for side in sides[1:])]
        parts.append(f"Costs\n{_table(header, costs, numbers=True)}\n\n{_COSTS}")
    return "\n\n".join(parts) + "\n"


def same_data(sides: Sequence[Side]) -> bool:
    """Whether all runs were scored on the same data: the dataset as specified, and what was read as far as known."""
    records = [record for side in sides for record in side.records]
    if any(record.spec.get("dataset") != records[0].spec.get("dataset") for record in records):
        return False
    digests: dict[str, str] = {}
    return all(digests.setdefault(name, sha) == sha for r in records for name, sha in r.provenance.data.items())


def _heading(side: Side) -> list[str]:
    statuses = dict.fromkeys(f"{record.status} ({record.scope})" for record in side.records)
    keys = [record.run_key[:8] for record in side.records]
    name = f"{side.first.task.name} {side.first.labels.dataset} {side.first.labels.method}"
    return [
        side.letter,
        formatting.clean(name),
        ranges(record.seed for record in side.records),
        ", ".join(statuses),
        side.said("environment.device"),
        _short(side, "provenance.commit"),
        " ".join(keys[:2]) + (f" and {len(keys) - 2} more" if len(keys) > 2 else ""),
    ]


def _specs(sides: Sequence[Side]) -> str:
    keys = differing_keys([side.first for side in sides])
    if not keys:
        return "The specs are the same, seeds apart."
    flat = [dict(flatten(side.first.spec)) for side in sides]
    rows = [[key, *(one.get(key, formatting.DASH) for one in flat)] for key in keys]
    return f"Specs differ in\n{_table(['key', *_letters(sides)], rows)}"


def _surroundings(sides: Sequence[Side]) -> list[list[str]]:
    names = dict.fromkeys(name for side in sides for fields in side.fields for name in fields)
    rows = []
    for name in names:
        if name.startswith(_SURROUNDINGS):
            digest = name in ("provenance.commit", "provenance.step_code")
            said = [_short(side, name) if digest else side.said(name) for side in sides]
            if len(set(said)) > 1:
                rows.append([name.split(".", 1)[1], *said])
    return rows


def _short(side: Side, name: str) -> str:
    return ", ".join(value[:12] for value in side.said(name).split(", "))


def _metrics(sides: Sequence[Side], compared: bool) -> str:
    rows = []
    for stage, split, metric in _measured(sides):
        found = [side.by_seed(stage, split, metric) for side in sides]
        values = [formatting.summary(summarize(list(one.values())), metric) for one in found]
        differences = [_difference(one, found[0], metric) for one in found[1:]] if compared else []
        rows.append([f"{stage} {split} {metric}", *values, *differences])
    if not rows:
        return "No side has a metric: " + "; ".join(f"{side.letter} {side.said('status')}" for side in sides)
    header = ["", *_letters(sides)]
    if compared:
        header += [f"{side.letter} - {sides[0].letter} [95 %]" for side in sides[1:]]
    return f"Metrics\n{_table(header, rows, numbers=True)}\n\n{_METRICS if compared else _OTHER_DATA}"


def _measured(sides: Sequence[Side]) -> Iterator[tuple[str, str, str]]:
    """Stages in the order of the runs, validation before test, what results are ranked by first; counts left out."""
    metrics = [record.metrics for side in sides for record in side.records]
    for stage in dict.fromkeys(stage for found in metrics for stage in found):
        splits = dict.fromkeys(split for found in metrics for split in found.get(stage, {}))
        for split in sorted(splits, key=lambda name: _SPLITS.index(name) if name in _SPLITS else len(_SPLITS)):
            names = dict.fromkeys(name for found in metrics for name in found.get(stage, {}).get(split, {}))
            for name in sorted(names, key=lambda name: name not in PRIMARY_METRICS):
                if name != "tokens":
                    yield stage, split, name


def _difference(ours: Mapping[int, float], base: Mapping[int, float], metric: str) -> str:
    found = paired(ours, base)
    if found.n:
        return f"{with_interval(found, metric)} ({found.n})"
    found = difference(list(ours.values()), list(base.values()))
    return formatting.DASH if found == Summary(0) or found.mean is None else f"{with_interval(found, metric)} unpaired"


def _letters(sides: Sequence[Side]) -> list[str]:
    return [side.letter for side in sides]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    align = ["left", *("right" if numbers else "left" for _ in header[1:])]
    cells = [[formatting.clean(cell) for cell in row] for row in rows]
    return tabulate(cells, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)
