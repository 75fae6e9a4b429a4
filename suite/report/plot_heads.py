"""Time and memory of a head's loss by shape: one pass beside the materialised forms, from the GPU benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from suite.report import formatting
from suite.report.costs import BRIEF, HEADS, arithmetic_title, read_benchmark, wrong_benchmark
from suite.report.descriptions import heads_sentence
from suite.report.plotting import COLOURS, HATCHES, new_figure, plain_log

_BAR = 0.2  # inches
_MEASURES = (("ms", "milliseconds, forward and backward"), ("peak_mib", "peak of memory above the inputs, MiB"))


def head_costs(results: Path) -> Iterator[tuple[str, Figure]]:
    """One figure: a row of two panels a shape (N, K, d, V), a bar a form and arithmetic, hatched by arithmetic.

    Raises:
        InputError: ``heads.json`` is not such a benchmark.
    """
    path = results / HEADS
    if not path.exists():
        return
    rows, where = read_benchmark(path, "heads", "make bench-gpu")
    try:
        shapes: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["form"] in BRIEF and "failed" not in row and row["ms"] > 0 and row["peak_mib"] > 0:
                shapes.setdefault(tuple(int(row[name]) for name in ("N", "K", "d", "V")), []).append(row)
        if shapes:
            yield "heads-by-shape", _figure(shapes, where)
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_benchmark(path, "heads", "make bench-gpu", error) from None


def _figure(shapes: Mapping[tuple[int, ...], Sequence[Mapping[str, Any]]], where: str) -> Figure:
    kinds = sorted({row["dtype"] for rows in shapes.values() for row in rows})
    ordered = {
        shape: sorted(rows, key=lambda row: (BRIEF.index(row["form"]), row["dtype"])) for shape, rows in shapes.items()
    }
    # Bars, the gaps between forms, and the title of each shape.
    heights = [len(rows) + 0.5 * len({row["form"] for row in rows}) + 0.8 for rows in ordered.values()]
    figure = new_figure(10.5, _BAR * sum(heights) + 0.3 * len(shapes) + 1.2)
    grid: list[list[Axes]] = figure.subplots(
        len(shapes), 2, sharex="col", squeeze=False, height_ratios=heights
    ).tolist()
    for line, (shape, rows) in zip(grid, ordered.items(), strict=True):
        for axes, (measure, _) in zip(line, _MEASURES, strict=True):
            _bars(axes, rows, measure, kinds)
        line[1].set_yticklabels([])
        tokens, experts, size, words = shape
        title = f"N = {tokens:,} contexts, K = {experts}, d = {size}, V = {words:,} words"
        commits = sorted({row["commit"][:7] for row in rows if "commit" in row})
        title += f" (at commit {', '.join(commits)})" if commits else ""
        line[0].set_title(title, fontsize=9, loc="left", weight="bold")
    for column, (measure, said) in enumerate(_MEASURES):
        values = [float(row[measure]) for rows in ordered.values() for row in rows]
        # On a logarithmic axis a bar has no natural foot; the room on the right is for the numbers.
        plain_log(grid[0][column], "x", min(values) / 2, max(values) * 3)
        grid[-1][column].set_xlabel(said)
    handles = [Patch(facecolor="#DDDDDD", edgecolor="#000000", hatch=_hatch(kind, kinds)) for kind in kinds]
    figure.legend(handles, [arithmetic_title(kind) for kind in kinds], loc="outside lower center", ncols=len(kinds))
    figure.suptitle(f"What a head's loss costs, {where}", fontsize=10)
    figure.set_label(heads_sentence(ordered, where))
    return figure


def _hatch(kind: str, kinds: Sequence[str]) -> str:
    return HATCHES[kinds.index(kind) % len(HATCHES)]


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]], measure: str, kinds: Sequence[str]) -> None:
    """Bars from the top down, those of one form together, each with its number."""
    place, ticks, last = 0.0, dict[str, list[float]](), ""
    for row in rows:
        form, value = str(row["form"]), float(row[measure])
        place += 1.5 if last and form != last else 1.0
        last = form
        ticks.setdefault(form, []).append(place)
        # One pass, which is ours, is darker than its peers; both are light enough for a hatch.
        colour = COLOURS[5] if form.startswith("one pass") else "#EEEEEE"
        hatch = _hatch(row["dtype"], kinds)
        axes.barh([place], [value], height=0.86, color=colour, edgecolor="#000000", linewidth=0.6, hatch=hatch)
        axes.annotate(f" {formatting.cost(value)}", (value, place), fontsize=7, va="center")
    axes.set_yticks([sum(places) / len(places) for places in ticks.values()], list(ticks), fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_ylim(place + 0.7, 0.3)
