"""Perplexity against what it costs, the seconds of an epoch and the peak of memory: which head is worth its cost.

Of runs made for the clock alone, whose perplexities mean nothing: the peak of memory against the seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.records.metrics import PRIMARY_METRICS
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import TRAINING, Cell, CellCosts, SectionKey, costs
from suite.report.compare import Summary, summarize
from suite.report.descriptions import costs_sentence
from suite.report.pairing import values
from suite.report.plotting import COLOURS, MARKERS, new_figure, plain_log
from suite.report.worth import step, steps

_WIDEST = 42  # of the legend, in characters, lest it leave the panels no room
# The synthetic experiment has its own maps.
_METRICS = tuple(name for name in PRIMARY_METRICS if name != "kl")


class Point(NamedTuple):
    """One cell: its metric over seeds, seconds an epoch, and peak memory in MiB where it was measured."""

    name: str
    quality: Summary
    seconds: float
    peak_mib: float | None

    @property
    def mean(self) -> float:
        """Of the metric."""
        return self.quality.mean or 0.0


def quality_against_cost(cells: Sequence[Cell], records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """One figure a language, protocol and stage, one point a cell: mean and interval by seconds and by memory.

    Costs come from runs alone on the machine, of one device and one version of the code: those that time the most
    cells. Peaks are shown where two cells or more have one of the same source: the allocator's where all have it.
    """
    for key in dict.fromkeys(cell.key for cell in cells if cell.key.of_heads):
        here = [cell for cell in cells if cell.key == key]
        metric = next((name for name in _METRICS if any(values(cell, name) for cell in here)), None)
        timed = _timed([cell for cell in here if metric and values(cell, metric)], records)
        if not key.of_quality:
            timed = [(cell, took) for cell, took in timed if took.own_peak_mib is not None]
        # Cells of one step cost the same, whatever they were trained for.
        if metric and len({step(cell.records[0]) for cell, _ in timed}) > 1:
            yield f"cost-{key.dataset}-{key.protocol}-{key.stage}", _figure(key, metric, timed)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats, being as low in both and lower in one; by the first coordinate."""
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        # The last kept is the lowest of all before it.
        if not kept or points[index][1] < points[kept[-1]][1] or points[index] == points[kept[-1]]:
            kept.append(index)
    return kept


def _timed(cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[Cell, CellCosts]]:
    by_step = steps(records)
    alike = [(cell, by_step.get(step(cell.records[0]), [])) for cell in cells]
    runs = sorted((r for _, members in alike for r in members), key=lambda r: r.provenance.ended, reverse=True)
    best: list[tuple[Cell, CellCosts]] = []
    # The latest first: of two that time as many cells it stands, as it does in the tables.
    for version, device in dict.fromkeys((r.step_version, r.environment.device) for r in runs if r.environment):
        found = []
        for cell, members in alike:
            same = [r for r in members if r.environment and (r.step_version, r.environment.device) == (version, device)]
            took = costs(same, TRAINING)
            if took.seconds_per_epoch:
                found.append((cell, took))
        best = max(best, found, key=len)
    return best


def _figure(key: SectionKey, metric: str, timed: Sequence[tuple[Cell, CellCosts]]) -> Figure:
    source, peaks = _peaks([took for _, took in timed])
    points = []
    for (cell, took), peak in zip(timed, peaks, strict=True):
        apart = f" ({'; '.join(cell.difference)})" if cell.difference else ""
        quality = summarize(values(cell, metric)) if key.of_quality else summarize([] if peak is None else [peak])
        points.append(Point(f"{cell.method}{apart}", quality, took.seconds_per_epoch or 0.0, peak))
    points = sorted((p for p in points if p.quality.n), key=lambda point: (point.seconds, point.name))
    memory = f"peak of memory, MiB ({source})"
    if key.of_quality:
        what, title = metric, f"{formatting.metric_title(metric)}, mean and 95 % interval"
        beaten, with_memory = "is as good and as cheap (Pareto)", sum(peak is not None for peak in peaks) > 1
    else:
        what, title, beaten, with_memory = "peak MiB", memory, "takes as little of both", False
    figure = new_figure(9.6 if with_memory else 7.2, 0.24 * max(0, len(points) - 8) + 4.6)
    grid: list[Axes] = figure.subplots(1, 1 + with_memory, sharey=True, squeeze=False)[0].tolist()
    _panel(grid[0], points, lambda point: point.seconds)
    grid[0].set_xlabel(f"training seconds an epoch ({timed[0][1].device})")
    grid[0].set_ylim(*_span(points))
    grid[0].ticklabel_format(axis="y", useOffset=False)
    grid[0].set_ylabel(title)
    if with_memory:
        _panel(grid[1], points, lambda point: point.peak_mib)
        grid[1].set_xlabel(memory)
    figure.suptitle(f"{' · '.join(key)}\nfilled, on the line: no other {beaten}", fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, [_lines(label) for label in labels], fontsize=8, loc="outside right center")
    best = [points[index].name for index in front([(point.seconds, point.mean) for point in points])]
    figure.set_label(costs_sentence(" · ".join(key), what, [(p.name, p.mean, p.seconds) for p in points], best))
    return figure


def _peaks(took: Sequence[CellCosts]) -> tuple[str, list[float | None]]:
    """Of what the peaks of memory are, in words, and one a cell; None where it has none of that source.

    NVML counts what the allocator keeps reserved, by which a softmax may hold as much as a mixture that needs more.
    """
    if all(one.allocated_mib is not None for one in took):
        return "allocator", [one.allocated_mib for one in took]
    sources = [one.peak_source for one in took if one.own_peak_mib is not None]
    source = max(sorted(set(sources)), key=sources.count, default="")
    return source, [one.own_peak_mib if one.peak_source == source else None for one in took]


def _span(points: Sequence[Point]) -> tuple[float, float]:
    """Limits of the metric: intervals and all, and 2 % of it at least, lest a hundredth looks like a difference."""
    ends = [end for p in points for end in (p.mean, p.quality.low, p.quality.high) if end is not None]
    low, high = min(ends), max(ends)
    half = max(0.54 * (high - low), 0.01 * abs(high))
    return (low + high) / 2 - half, (low + high) / 2 + half


def _lines(label: str) -> str:
    return textwrap.fill(label.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), _WIDEST)


def _panel(axes: Axes, points: Sequence[Point], cost: Callable[[Point], float | None]) -> None:
    """Points by a cost on a logarithmic axis; the front's are filled and joined, the others hollow."""
    places = {index: value for index, point in enumerate(points) if (value := cost(point))}
    order = list(places)
    best = [order[place] for place in front([(places[index], points[index].mean) for index in order])]
    axes.step(
        [places[index] for index in best],
        [points[index].mean for index in best],
        where="post",
        color="#000000",
        linewidth=0.9,
        linestyle="--",
        zorder=1,
    )
    for index, place in places.items():
        point, colour = points[index], COLOURS[index % len(COLOURS)]
        low, high = point.quality.low, point.quality.high
        axes.errorbar(
            [place],
            [point.mean],
            yerr=None if low is None or high is None else [[point.mean - low], [high - point.mean]],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=7,
            markerfacecolor=colour if index in best else "#FFFFFF",
            markeredgewidth=1.4,
            elinewidth=1.1,
            capsize=3,
            linestyle="none",
            label=f"{point.name}, n = {point.quality.n}",
        )
    plain_log(axes, "x", min(places.values()) / 1.15, max(places.values()) * 1.15, 6)
