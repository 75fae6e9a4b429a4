"""Perplexity and rank of a mixture by its number of experts, from runs that differ in nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.records.metrics import PRIMARY_METRICS
from suite.report import formatting
from suite.report.cells import Cell, SectionKey
from suite.report.compare import Summary, summarize
from suite.report.descriptions import experts_sentence
from suite.report.grouping import differing_keys, flatten, origin
from suite.report.pairing import values
from suite.report.plotting import line_look, new_figure, plain_log

_RANKS = {"rank": "rank (numpy's threshold, float64)", "rank_press": "rank (the papers' threshold)"}
Line = Mapping[int, Cell]


def by_experts(cells: Sequence[Cell]) -> Iterator[tuple[str, Figure]]:
    """One figure a dataset, protocol and stage, one line a model whose cells differ in ``experts`` alone.

    A line has two numbers of experts or more. The rank's panels are there where a cell of the lines has a rank.
    """
    for key in dict.fromkeys(cell.key for cell in cells if cell.key.of_quality):
        groups: dict[str, dict[int, Cell]] = defaultdict(dict)
        for cell in (cell for cell in cells if cell.key == key):
            experts = cell.records[0].spec["head"].get("experts")
            if isinstance(experts, int):
                members = groups[_but_experts(cell)]
                if experts not in members or len(members[experts].seeds) < len(cell.seeds):
                    members[experts] = cell
        lines = [dict(sorted(members.items())) for _, members in sorted(groups.items()) if len(members) > 1]
        metric = next(
            (name for name in PRIMARY_METRICS if any(values(c, name) for line in lines for c in line.values())), None
        )
        if metric:
            yield f"experts-{key.dataset}-{key.protocol}-{key.stage}", _figure(key, metric, _named(lines))


def _but_experts(cell: Cell) -> str:
    """What made the cell's numbers, experts and seed apart."""
    record = cell.records[0]
    head = {name: value for name, value in record.spec["head"].items() if name != "experts"}
    return origin(record.model_copy(update={"spec": {**record.spec, "head": head}}), cell.key.stage)


def _named(lines: Sequence[Line]) -> dict[str, Line]:
    """Lines by the encoder, the head and its function, and what else sets them apart from each other."""
    firsts = [next(iter(line.values())).records[0] for line in lines]
    keys = [
        key
        for key in differing_keys(firsts)
        if key not in ("head.experts", "head.name") and not key.startswith("stages")
    ]
    found: dict[str, Line] = {}
    for record, line in zip(firsts, lines, strict=True):
        flat = dict(flatten(record.spec))
        apart = [f"{key.removeprefix('head.')}={flat[key]}" for key in keys if key in flat]
        found[f"{record.labels.encoder}/{record.spec['head']['name']}{', '.join(['', *apart])}"] = line
    return found


def _figure(key: SectionKey, metric: str, lines: Mapping[str, Line]) -> Figure:
    quality = {
        name: {experts: summary for experts, cell in line.items() if (summary := summarize(values(cell, metric))).n}
        for name, line in lines.items()
    }
    ranks = {
        rank: {
            name: {k: s for k, c in line.items() if (s := summarize(values(c, rank))).n} for name, line in lines.items()
        }
        for rank in _RANKS
    }
    shown = [rank for rank, found in ranks.items() if any(found.values())]
    figure = new_figure(4.6 + 3.4 * len(shown), 3.9)
    panels: list[Axes] = figure.subplots(1, 1 + len(shown), squeeze=False)[0].tolist()
    title = formatting.metric_title(metric)
    _panel(panels[0], quality, f"{title}, mean and 95 % interval")
    for axes, rank in zip(panels[1:], shown, strict=True):
        _panel(axes, ranks[rank], _RANKS[rank])
    figure.suptitle(f"{' · '.join(key)}, by number of experts", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    means = {name: {k: s.mean or 0.0 for k, s in found.items()} for name, found in quality.items()}
    full = {name: {k: s.mean or 0.0 for k, s in found.items()} for name, found in ranks["rank"].items()}
    figure.set_label(experts_sentence(" · ".join(key), metric, means, full))
    return figure


def _panel(axes: Axes, lines: Mapping[str, Mapping[int, Summary]], title: str) -> None:
    places = sorted({experts for line in lines.values() for experts in line})
    for index, (name, line) in enumerate(lines.items()):
        look = {**line_look(index), "markevery": None}
        means = [summary.mean or 0.0 for summary in line.values()]
        ends = [
            (s.low, s.high) if s.low is not None and s.high is not None else (m, m)
            for s, m in zip(line.values(), means, strict=True)
        ]
        bars = [
            [m - low for m, (low, _) in zip(means, ends, strict=True)],
            [high - m for m, (_, high) in zip(means, ends, strict=True)],
        ]
        axes.errorbar(list(line), means, yerr=bars, capsize=3, label=name, **look)
    plain_log(axes, "x", min(places) / 1.2, max(places) * 1.2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.set_xlabel("K, experts")
    axes.set_ylabel(title)
