"""Perplexity against the seconds an epoch takes: which head is worth its cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import Cell, SectionKey, costs
from suite.report.compare import summarize
from suite.report.descriptions import costs_sentence
from suite.report.pairing import values
from suite.report.plotting import COLOURS, MARKERS, new_figure
from suite.report.worth import step, steps

# The synthetic experiment has its own maps.
_METRICS = ("ppl", "bpc")


def quality_against_cost(cells: Sequence[Cell], records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """One figure a language, protocol and stage, one point a cell: mean and interval, seconds an epoch.

    Seconds come from runs alone on the machine, of one device and one version of the code: those that time the most
    cells.
    """
    for key in dict.fromkeys(cell.key for cell in cells):
        here = [cell for cell in cells if cell.key == key]
        metric = next((name for name in _METRICS if any(values(cell, name) for cell in here)), None)
        timed = _timed([cell for cell in here if metric and values(cell, metric)], records)
        if metric and len(timed) > 1:
            yield f"cost-{key.dataset}-{key.protocol}-{key.stage}.png", _points(key, metric, timed)


def _timed(cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[Cell, float, str]]:
    by_step = steps(records)
    alike = [(cell, by_step.get(step(cell.records[0]), [])) for cell in cells]
    setups = {(r.provenance.commit, r.environment.device) for _, members in alike for r in members if r.environment}
    best: list[tuple[Cell, float, str]] = []
    for commit, device in sorted(setups, key=str):
        found = []
        for cell, members in alike:
            same = [
                r for r in members if r.provenance.commit == commit and r.environment and r.environment.device == device
            ]
            seconds = costs(same).seconds_per_epoch
            if seconds:
                found.append((cell, seconds, device))
        best = max(best, found, key=len)
    return best


def _points(key: SectionKey, metric: str, timed: Sequence[tuple[Cell, float, str]]) -> Figure:
    figure = new_figure(7.2, 4.8)
    axes = figure.subplots()
    for index, (cell, seconds, _) in enumerate(sorted(timed, key=lambda item: item[1])):
        summary = summarize(values(cell, metric))
        mean = summary.mean or 0.0
        bar = [[mean - summary.low], [summary.high - mean]] if summary.low is not None and summary.high else None
        apart = f" ({'; '.join(cell.difference)})" if cell.difference else ""
        axes.errorbar(
            [seconds],
            [mean],
            yerr=bar,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=7,
            capsize=3,
            linestyle="none",
            label=f"{cell.method}{apart}, n = {summary.n}",
        )
    points = [(cell.method, summarize(values(cell, metric)).mean or 0.0, seconds) for cell, seconds, _ in timed]
    figure.set_label(costs_sentence(" · ".join(key), metric, points))
    axes.set_xscale("log")
    times = [seconds for _, seconds, _ in timed]
    axes.set_xlim(min(times) / 1.25, max(times) * 1.25)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=()))
    axes.set_xlabel(f"training seconds an epoch ({timed[0][2]})")
    axes.set_ylabel(f"{formatting.METRIC_TITLES.get(metric, metric)}, mean and 95 % interval")
    axes.set_title(" · ".join(key), fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
