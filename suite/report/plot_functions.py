"""The pointwise functions that heads have learned, beside the softmax's identity, and their slopes."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.records.record import Record
from suite.report.cells import SectionKey
from suite.report.descriptions import functions_sentence
from suite.report.plotting import line_look, new_figure

# The part of the logits, half on either side, that lies beyond the thick part of a line.
_OUTSIDE = 0.02
_STRETCH = 8
# Columns of a function in a record: z, g(z), the share of the logits up to z and, but for older runs, g(z) as built.
_LEARNED, _BUILT = 1, 3
Function = Sequence[Sequence[float]]


def functions(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """One figure a dataset, protocol and stage, a line a method: its lowest seed that has a function."""
    groups: dict[SectionKey, dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.scope != "full", record.seed, record.run_key)):
        for stage, rows in record.functions.items():
            key = SectionKey(record.labels.dataset, record.task.protocol, stage)
            if len(rows) > 2 and key.of_quality:
                groups[key].setdefault(record.labels.method, record)
    for (dataset, protocol, stage), members in sorted(groups.items()):
        learned = {method: record.functions[stage] for method, record in sorted(members.items())}
        yield f"function-{dataset}-{protocol}-{stage}", _functions(f"{dataset} · {protocol} · {stage}", learned)


def _held(rows: Function) -> list[int]:
    return [column for column in (_LEARNED, _BUILT) if column < len(rows[0])]


def slopes(rows: Function, of: int = _LEARNED) -> tuple[list[float], list[float], list[float]]:
    """Middles of stretches of eight neighbours, the mean slope over each, and the share of logits to its middle.

    One piece of a piecewise linear function starts with a slope at random; what is learned is their mean.
    """
    pairs = list(pairwise([*rows[:-1:_STRETCH], rows[-1]]))
    return (
        [(a[0] + b[0]) / 2 for a, b in pairs],
        [(b[of] - a[of]) / (b[0] - a[0]) for a, b in pairs],
        [(a[2] + b[2]) / 2 for a, b in pairs],
    )


def anchored(rows: Function) -> list[float]:
    """g with the constant that makes it 0 at the median logit, where the identity is taken to be 0 as well."""
    middle = _at_the_median(rows)[_LEARNED]
    return [row[_LEARNED] - middle for row in rows]


def _at_the_median(rows: Function) -> Sequence[float]:
    return next((row for row in rows if row[2] >= 0.5), rows[-1])


def _functions(place: str, learned: Mapping[str, Function]) -> Figure:
    figure = new_figure(7.6, 6.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steepest = [1.0]
    for index, (method, rows) in enumerate(learned.items()):
        shares = [row[2] for row in rows]
        _line(upper, index, method, [row[0] for row in rows], anchored(rows), shares)
        places, values, shares = slopes(rows)
        _line(lower, index, method, places, values, shares)
        steepest += values
        if _BUILT in _held(rows):
            built = slopes(rows, _BUILT)[1]
            # On top of its own line, which it may not have left.
            lower.plot(places, built, color="#000000", linestyle=":", linewidth=1.2, zorder=5)
            steepest += built
    if any(_BUILT in _held(rows) for rows in learned.values()):
        lower.annotate("dotted: as built, before training", (0.01, 0.04), xycoords="axes fraction", fontsize=8)
    ends = [row[0] for rows in learned.values() for row in rows]
    centre = statistics.fmean(_at_the_median(rows)[0] for rows in learned.values())
    upper.plot([min(ends), max(ends)], [min(ends) - centre, max(ends) - centre], color="#000000", linewidth=0.8)
    upper.annotate(" softmax: g(z) = z", (max(ends), max(ends) - centre), fontsize=8, ha="right", va="bottom")
    lower.axhline(1, color="#000000", linewidth=0.8)
    lower.set_ylim(0, 1.1 * max(steepest))
    upper.set_ylabel("g(z), 0 at the median logit")
    lower.set_ylabel("slope of g, mean over\n1/32 of the logits' range")
    lower.set_xlabel("logit z (thick: 98 % of the logits seen)")
    upper.set_title(f"learned functions: {place}", fontsize=10)
    upper.legend(loc="upper left")
    figure.set_label(functions_sentence(place, {method: _extremes(rows) for method, rows in learned.items()}))
    return figure


def _line(
    axes: Axes, index: int, label: str, places: Sequence[float], values: Sequence[float], shares: Sequence[float]
) -> None:
    look = line_look(index)
    axes.plot(places, values, **{**look, "linewidth": 0.8, "marker": ""})
    inner = [(z, g) for z, g, share in zip(places, values, shares, strict=True) if _inside(share)]
    axes.plot([z for z, _ in inner], [g for _, g in inner], label=label, **{**look, "linewidth": 2.2})


def _inside(share: float) -> bool:
    return _OUTSIDE / 2 <= share <= 1 - _OUTSIDE / 2


def _extremes(rows: Function) -> list[float]:
    """Lowest and highest logit seen, and the least and the greatest slope where 98 % of the logits lie.

    The two slopes again of the function as it was built, where that is known.
    """
    found = [rows[0][0], rows[-1][0]]
    for of in _held(rows):
        _, values, shares = slopes(rows, of)
        inner = [value for value, share in zip(values, shares, strict=True) if _inside(share)] or values
        found += [min(inner), max(inner)]
    return found
