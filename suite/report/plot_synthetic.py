"""Heat maps of the synthetic experiment: number of words against size of the embeddings, for each head."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from suite.records.record import Record
from suite.report.descriptions import synthetic_sentence
from suite.report.plotting import new_figure

BASE = "softmax"
Grid = Mapping[tuple[int, int], float]


class _Panel(NamedTuple):
    """A column of maps; ``worse`` is 1 where a ratio above one is worse than the softmax, -1 where one below is."""

    title: str
    grid: Callable[[str], Grid]
    shown: Callable[[float], str]
    colours: str
    worse: int = 0


def synthetic(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """One figure a number of contexts and a concentration beta: KL gap and modes matched, also over the softmax's.

    A grid of one number of words or one size is no map, and left out.
    """
    groups: dict[tuple[str, int, float], list[Record]] = defaultdict(list)
    for record in records:
        data, encoder = record.spec.get("dataset", {}), record.spec.get("encoder", {})
        full = record.status == "finished" and record.scope == "full"
        numbers = (data.get("contexts"), data.get("concentration"), data.get("words"), encoder.get("dimension"))
        # A record from elsewhere may call anything categorical.
        known = all(isinstance(number, int | float) and abs(number) < 1e15 for number in numbers)
        if full and data.get("name") == "categorical" and known:
            groups[record.task.protocol, int(data["contexts"]), float(data["concentration"])].append(record)
    for (protocol, contexts, beta), members in sorted(groups.items()):
        words = {record.spec["dataset"]["words"] for record in members}
        sizes = {record.spec["encoder"]["dimension"] for record in members}
        if len(words) > 1 and len(sizes) > 1:
            title = f"synthetic experiment: N = {contexts:,} contexts, beta = {beta:g} (mean over seeds)"
            yield f"synthetic-{protocol}-N{contexts}-beta{beta:g}", _maps(members, title)


def _maps(members: Sequence[Record], title: str) -> Figure:
    kl, modes = _means(members, "kl"), _means(members, "mode_match")
    heads = sorted(kl, key=lambda head: (head != BASE, head))
    panels = (
        _Panel("KL gap (nats)", lambda head: kl[head], _nats, "viridis"),
        _Panel("KL gap / softmax's", lambda head: _over(kl, head), _two_digits, "PuOr_r", 1),
        _Panel("modes matched (%)", lambda head: modes.get(head, {}), lambda value: f"{value:.0f}", "viridis"),
        _Panel("modes / softmax's", lambda head: _over(modes, head), _two_digits, "PuOr", -1),
    )
    words = sorted({record.spec["dataset"]["words"] for record in members})
    sizes = sorted({record.spec["encoder"]["dimension"] for record in members})
    width = max(2.7, 0.42 * len(sizes) + 1.3)
    figure = new_figure(4 * width, max(1.9, 0.34 * len(words) + 0.9) * len(heads))
    grid: list[list[Axes]] = figure.subplots(len(heads), len(panels), squeeze=False).tolist()
    for column, panel in enumerate(panels):
        values = [value for head in heads for value in panel.grid(head).values()]
        norm = _norm(values, panel.worse != 0)
        for row, head in enumerate(heads):
            axes = grid[row][column]
            _map(axes, panel.grid(head), (words, sizes), norm, panel)
            axes.set_title(panel.title if row == 0 else "", fontsize=9)
            axes.set_xlabel("d (size of the embeddings)" if row == len(heads) - 1 else "")
            axes.set_ylabel(f"{head}\nM (words)" if column == 0 else "")
    figure.suptitle(f"{title}; hatched: worse than the softmax", fontsize=10)
    figure.set_label(synthetic_sentence(title, kl))
    return figure


def _means(members: Sequence[Record], metric: str) -> dict[str, Grid]:
    """Mean over seeds by head and by words and size."""
    found: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in members:
        place = record.spec["dataset"]["words"], record.spec["encoder"]["dimension"]
        for splits in record.metrics.values():
            if metric in splits.get("test", {}):
                found[record.labels.head][place].append(splits["test"][metric])
    return {head: {at: statistics.fmean(values) for at, values in grid.items()} for head, grid in found.items()}


def _over(grids: Mapping[str, Grid], head: str) -> Grid:
    base = grids.get(BASE, {})
    return {at: value / base[at] for at, value in grids.get(head, {}).items() if base.get(at)}


def _nats(value: float) -> str:
    """``3.0``, ``0.058``: a trailing zero is a digit too."""
    return f"{value:.1f}" if value >= 1 else f"{value:#.2g}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _norm(values: Sequence[float], ratio: bool) -> Normalize:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if ratio:
        # One is where a head equals the softmax: it has the middle of the colours, and twice is as far as half.
        most = max(high, 1 / low if low > 0 else 1.0, 1.1)
        return LogNorm(1 / most, most)
    if low > 0 and high / low > 30:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1)


def _map(axes: Axes, grid: Grid, sides: tuple[list[int], list[int]], norm: Normalize, panel: _Panel) -> None:
    words, sizes = sides
    table = [[grid.get((word, size), float("nan")) for size in sizes] for word in words]
    image = axes.imshow(table, norm=norm, cmap=panel.colours, aspect="auto", origin="lower")
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(range(len(words)), [f"{word:,}" for word in words])
    axes.grid(False)
    for row, word in enumerate(words):
        for column, size in enumerate(sizes):
            value = grid.get((word, size))
            if value is not None:
                red, green, blue, _ = image.cmap(norm(value))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                style = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"}
                axes.text(column, row, panel.shown(value), **style)  # type: ignore[arg-type]
                if panel.worse * (value - 1) > 0.005:
                    # Both ends of a diverging scale are one grey in print.
                    place = column - 0.5, row - 0.5
                    axes.add_patch(Rectangle(place, 1, 1, fill=False, hatch="///", edgecolor="#00000040", linewidth=0))
