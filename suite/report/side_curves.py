"""Learning curves side by side: a line of blocks each, and a few epochs in a table."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from suite.records.metrics import PRIMARY_METRICS
from suite.records.record import Record
from suite.report import formatting
from suite.report.sides import Side

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 48
_EPOCHS = 8
# The stage's place in the run, then the epoch.
Point = tuple[int, int]
Curve = Mapping[Point, float]


def curve(records: Sequence[Record], metric: str) -> Curve:
    """A curve's metric by stage and epoch, the mean over the runs that got there."""
    found: dict[Point, list[float]] = defaultdict(list)
    for record in records:
        for point in record.curves:
            if metric in point:
                found[int(point.get("stage", 0)), int(point.get("epoch", 0))].append(point[metric])
    return {place: statistics.fmean(values) for place, values in sorted(found.items())}


def shared_metric(sides: Sequence[Side]) -> str | None:
    """The validation metric, else the training loss, that the curves of all sides have."""
    names = [set().union(*(point.keys() for r in side.records for point in r.curves)) for side in sides]
    wanted = [*(f"valid_{name}" for name in PRIMARY_METRICS), "train_nll"]
    return next((name for name in wanted if all(name in held for held in names)), None)


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """One block a value, from ``low`` to ``high``; by the logarithm where both are positive; a space where none is.

    At most 48: of more, those at equal distances.
    """
    if len(values) > _WIDTH:
        values = [values[round(i * (len(values) - 1) / (_WIDTH - 1))] for i in range(_WIDTH)]
    scale = math.log if low > 0 else float
    span = scale(high) - scale(low)

    def block(value: float | None) -> str:
        if value is None:
            return " "
        part = (scale(value) - scale(low)) / span if span > 0 else 0.0
        return _BLOCKS[min(len(_BLOCKS) - 1, max(0, int(part * len(_BLOCKS))))]

    return "".join(map(block, values))


def chosen(points: Sequence[Point], most: int = _EPOCHS) -> list[Point]:
    """A few points of a curve, the first and the last among them; dense at the beginning, where curves fall."""
    last = len(points) - 1
    if last < most:
        return list(points)
    places = {round(math.exp(step / (most - 1) * math.log(last + 1))) - 1 for step in range(most)}
    return [points[place] for place in sorted(places | {0, last})]


def curve_lines(sides: Sequence[Side], compared: bool) -> tuple[list[str], list[str], list[list[str]]]:
    """The blocks of each side as lines, then header and rows of the table; all empty where no curve is shared.

    Args:
        sides: as elsewhere; the first is what the others are set against.
        compared: whether differences mean anything, the data being the same.
    """
    metric = shared_metric(sides)
    if metric is None:
        return [], [], []
    name = metric.removeprefix("valid_")
    curves = [curve(side.records, metric) for side in sides]
    everywhere = sorted(set().union(*curves))
    flat = [value for one in curves for value in one.values()]
    low, high = min(flat), max(flat)
    lines = []
    for side, one in zip(sides, curves, strict=True):
        best = min(one, key=lambda place: (one[place], place))
        last = max(one)
        said = f"best {formatting.metric(one[best], name)} at {_place(side, best)}"
        said += f", last {formatting.metric(one[last], name)} at {_place(side, last)}" if last != best else ", the last"
        lines.append(f"{side.letter}  {sparkline([one.get(place) for place in everywhere], low, high)}  {said}")
    shared = [place for place in everywhere if all(place in one for one in curves)]
    base = curves[0]
    rows = []
    for place in chosen(shared or everywhere):
        values = [formatting.metric(one[place], name) if place in one else formatting.DASH for one in curves]
        row = [_place(sides[0], place).removeprefix("epoch "), *values]
        if compared:
            row += [
                formatting.signed(one[place] - base[place], name) if place in one and place in base else formatting.DASH
                for one in curves[1:]
            ]
        rows.append(row)
    differences = [f"{side.letter} - {sides[0].letter}" for side in sides[1:]] if compared else []
    return [f"{metric}", *lines], ["epoch", *(side.letter for side in sides), *differences], rows


def _place(side: Side, place: Point) -> str:
    stage, epoch = place
    stages = side.first.spec.get("stages", ())
    name = f" of {stages[stage]['name']}" if 0 < stage < len(stages) else ""
    return f"epoch {epoch}{name}"
