"""Ours against published: every number that a run of ours answers, on one axis of relative differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import blended_transform_factory

from suite.records.published import Published, Value
from suite.report import formatting
from suite.report.compare import HIGHER_IS_BETTER, Summary
from suite.report.descriptions import forest_sentence
from suite.report.leaderboard import Leaderboard
from suite.report.plotting import COLOURS, new_figure
from suite.report.rows import Row, Section

_LINE = 0.3  # inches
# Of the axis to either side, in percent: the margins are seen, and a run that stopped early does not squeeze the rest.
_LEAST, _MOST = 3.0, 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A published number and ours: a mean over seeds, or the last validation value of a run that stopped early.

    ``ours`` has no mean where that run measured nothing that is published; ``lacking`` says why.
    """

    row: Row
    published: Published
    split: str
    metric: str
    theirs: Value
    ours: Summary
    place: str
    lacking: str = ""

    @property
    def partial(self) -> bool:
        """Whether no whole run answers it yet."""
        return self.row.partial is not None

    def percent(self, value: float) -> float:
        """A value against the published one, in percent of it."""
        return 100 * (value / self.theirs.value - 1)

    @property
    def title(self) -> str:
        """The method, what sets it apart, where the number was printed, and of which split it is."""
        apart = f" ({'; '.join(self.row.notes)})" if self.row.notes else ""
        return f"{self.row.method}{apart}\n{formatting.source(self.published)}, {self.split}"

    @property
    def said(self) -> str:
        """Ours and theirs as numbers, and how far the run got."""
        theirs = formatting.published_value(self.theirs, self.metric)
        if self.row.partial is not None:
            value = formatting.DASH if self.ours.mean is None else formatting.metric(self.ours.mean, self.metric)
            return f"{value} / {theirs}\nstopped at {self.row.partial.reached}"
        verdict = f"\n{self.row.verdict.value}" if self.row.verdict else ""
        return f"{formatting.summary(self.ours, self.metric)} / {theirs}{verdict}"


def forest(board: Leaderboard) -> Iterator[tuple[str, Figure]]:
    """One figure a dataset and metric; a line a published number that a run answers, or a tenth of one at least."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for section in board.sections:
        for row in section.rows:
            answer = _answer(section, row)
            if answer is not None:
                groups.setdefault((section.key.dataset, section.metric), []).append(answer)
    for (dataset, metric), answers in groups.items():
        yield f"forest-{dataset}-{metric}", _forest(dataset, metric, answers)


def _answer(section: Section, row: Row) -> Answer | None:
    number, metric = row.published, section.metric
    if number is None:
        return None
    place = f"{section.key.protocol} · {section.key.stage}"
    ours = (row.ours or {}).get(row.split, Summary(0))
    theirs = number.values.get(f"{row.split}.{metric}")
    if ours.n and theirs is not None and theirs.value:
        return Answer(row, number, row.split, metric, theirs, ours, place)
    # A run that stopped within the first tenth of its budget says nothing of where it was going.
    if row.partial is None or 10 * row.partial.epochs < (row.partial.of or 0):
        return None
    # What a run that stopped early has is its last validation value, of the stage it stopped in.
    theirs = number.values.get(f"valid.{metric}")
    reached = row.partial.stage == section.key.stage
    if theirs is not None and theirs.value and reached and row.partial.metric == metric and row.partial.value:
        return Answer(row, number, "valid", metric, theirs, Summary(1, row.partial.value), place)
    lacking = "no published validation value" if reached else "stopped before this stage"
    for split in (row.split, "valid"):
        shown = number.values.get(f"{split}.{metric}")
        if shown is not None and shown.value:
            return Answer(row, number, split, metric, shown, Summary(0), place, lacking)
    return None


def _forest(dataset: str, metric: str, answers: Sequence[Answer]) -> Figure:
    places = list(dict.fromkeys(answer.place for answer in answers))
    lines = len(answers) * 1.3 + len(places)
    figure = new_figure(10.0, _LINE * lines + 1.7)
    axes = figure.subplots()
    widest = min(_MOST, max(_LEAST, *(1.25 * abs(end) for answer in answers for end in _ends(answer))))
    axes.set_xlim(-widest, widest)
    row, ticks = 0.0, []
    for place in places:
        row += 1.0
        axes.annotate(place, (-0.01, row), xycoords=("axes fraction", "data"), fontsize=8.5, weight="bold", ha="right")
        for answer in (answer for answer in answers if answer.place == place):
            row += 1.3
            ticks.append((row - 0.2, answer.title))
            _line(axes, row - 0.2, answer, widest)
    axes.set_ylim(row + 0.8, 0.2)
    axes.set_yticks([place for place, _ in ticks], [title for _, title in ticks], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.axvline(0, color="#000000", linewidth=0.8, zorder=1)
    better = "higher" if metric in HIGHER_IS_BETTER else "lower"
    title = formatting.metric_title(metric)
    axes.set_xlabel(f"ours against published, % of the published {title} ({better} is better)")
    figure.suptitle(f"{dataset}: ours / published {title}", fontsize=10)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, fontsize=7.5)
    figure.set_label(forest_sentence(dataset, metric, [_words(answer) for answer in answers]))
    return figure


def _ends(answer: Answer) -> list[float]:
    """What must be seen of a line, in percent: the margin, and of a whole run the mean and its interval."""
    shown = [] if answer.partial else [answer.ours.mean, answer.ours.low, answer.ours.high]
    return [100 * answer.published.margin, *(answer.percent(value) for value in shown if value is not None)]


def _line(axes: Axes, row: float, answer: Answer, widest: float) -> None:
    margin = 100 * answer.published.margin
    axes.add_patch(Rectangle((-margin, row - 0.4), 2 * margin, 0.8, facecolor="#DDDDDD", edgecolor="none", zorder=0.5))
    spread = answer.theirs.sd
    if spread is not None:
        theirs = 100 * spread / abs(answer.theirs.value)
        axes.plot([-theirs, theirs], [row + 0.25] * 2, color="#666666", linewidth=1.2, linestyle=":")
    right = blended_transform_factory(axes.transAxes, axes.transData)
    axes.text(1.01, row, answer.said, transform=right, fontsize=7.5, va="center", linespacing=1.1)
    if answer.ours.mean is None:
        axes.text(0, row, answer.lacking, fontsize=7, ha="center", va="center", style="italic")
        return
    look: dict[str, Any] = {
        "color": COLOURS[1] if answer.partial else COLOURS[0],
        "markeredgewidth": 1.3,
        "markersize": 6,
    }
    if answer.partial:
        look["markerfacecolor"] = "#FFFFFF"
    place = answer.percent(answer.ours.mean)
    low, high = answer.ours.low, answer.ours.high
    if low is not None and high is not None:
        ends = sorted((answer.percent(low), answer.percent(high)))
        axes.plot(ends, [row] * 2, color=COLOURS[0], linewidth=1.4, marker="|", markersize=7)
    if abs(place) > widest:
        # Beyond the axis: an arrow at its edge, the number beside it.
        side = 1 if place > 0 else -1
        axes.plot([side * widest * 0.975], [row], marker=">" if side > 0 else "<", **look)
        said = f"{place:+,.0f} %".replace("-", "\N{MINUS SIGN}")
        axes.text(side * widest * 0.945, row, said, fontsize=7, ha="right" if side > 0 else "left", va="center")
    else:
        axes.plot([place], [row], marker="o" if low is not None else "D", **look)


def _legend() -> list[Line2D | Patch]:
    blue: dict[str, Any] = {"color": COLOURS[0]}
    hollow: dict[str, Any] = {"color": COLOURS[1], "markerfacecolor": "#FFFFFF", "linestyle": "none"}
    return [
        Line2D([], [], marker="o", **blue, label="ours: mean, 95 % interval over seeds"),
        Line2D([], [], marker="D", linestyle="none", **blue, label="a single run"),
        Line2D([], [], marker="D", **hollow, label="stopped early, last validation value"),
        Patch(facecolor="#DDDDDD", label="published and its margin"),
        Line2D([], [], color="#666666", linestyle=":", label="published standard deviation"),
    ]


def _words(answer: Answer) -> tuple[str, str]:
    """What the line is of, and what it says, for the figure's sentence."""
    source = formatting.source(answer.published)
    if answer.row.partial is not None:
        return f"{answer.row.method} against {source}", f"stopped at {answer.row.partial.reached}"
    change = f"{answer.percent(answer.ours.mean or 0.0):+.1f} %"
    verdict = f", {answer.row.verdict.value}" if answer.row.verdict else ""
    return f"{answer.row.method} against {source}", f"{change}{verdict}"
