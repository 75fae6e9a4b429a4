"""Published values that are made of several models' runs, and ours: gains, p-values, slow-downs, correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suite.records.published import Published, Value
from suite.records.record import Record
from suite.report.cells import Cell
from suite.report.compare import (
    HIGHER_IS_BETTER,
    SIGNIFICANT,
    Summary,
    Verdict,
    correlation,
    difference,
    p_value,
    summarize,
    verdict,
)
from suite.report.pairing import Apart, alike, matches, nearest, time_ratio

# The points of the grid of generalised sigsoftmax; the single best point of a table goes by the name gss.
_GRID = ("gss(*",)
# How the name of a p-value ends.
P_VALUE = "_p_value"
_RANKS = ("rank_press_float32", "rank_press", "rank")


@dataclass(frozen=True, slots=True)
class Answer:
    """Ours to one published value, the verdict on it, and every run that it is made of."""

    ours: Summary
    verdict: Verdict | None
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """One published value, and what there is to answer it: cells of its section, the other numbers of its source."""

    number: Published
    name: str
    section: Sequence[Cell]
    published: Sequence[Published]
    apart: Apart

    @property
    def value(self) -> Value:
        """As printed."""
        return self.number.values[self.name]

    @property
    def split(self) -> str:
        """``test`` of ``test.ppl_gain``."""
        return self.name.split(".", 1)[0]

    @property
    def metric(self) -> str:
        """``ppl_gain`` of ``test.ppl_gain``."""
        return self.name.split(".", 1)[1]

    def pair(self) -> tuple[Cell, Cell] | None:
        """The model's cell and that of its reference which is most like it, of one dataset and precision."""
        printed = self.references()
        for cell in self.section:
            others = [
                other
                for other in self.section
                if other.method == self.number.reference
                and (not printed or any(other.answers(number) for number in printed))
                and alike(cell, other, ("dataset", "precision"))
            ]
            if cell.answers(self.number) and others:
                return cell, cell if cell in others else nearest(cell, others, self.apart)
        return None

    def references(self) -> list[Published]:
        """What the source prints of the reference under the same protocol."""
        number = self.number
        place = (number.paper.key, number.dataset, number.protocol, number.stage)
        return [
            other
            for other in self.published
            if other.method == number.reference
            and (other.paper.key, other.dataset, other.protocol, other.stage) == place
        ]


def answer(question: Question) -> Answer | None:
    """What our runs say; None where the value is not of this kind."""
    for suffix, function in _KINDS.items():
        if question.metric.endswith(suffix):
            return function(question) or Answer(Summary(0), None)
    return None


def _gain(question: Question) -> Answer | None:
    """The reference's mean minus the model's, so that more is better, with Welch's interval."""
    pair = question.pair()
    if pair is None:
        return None
    cell, other = pair
    sides = [one.values(question.split, question.metric.removesuffix("_gain")) for one in (other, cell)]
    ours = difference(*sides)
    if ours.mean is None:
        return None
    said = verdict(ours, question.value, question.number.margin, question.metric in HIGHER_IS_BETTER)
    return Answer(ours, said, cell.records + other.records)


def _p_value(question: Question) -> Answer | None:
    """Welch's p, judged by what it finds: a p-value has no margin, and at the same effect falls with every seed."""
    pair = question.pair()
    if pair is None:
        return None
    cell, other = pair
    metric = question.metric.removesuffix(P_VALUE)
    mine, base = cell.values(question.split, metric), other.values(question.split, metric)
    if not mine or not base:
        return None
    gain = difference(base, mine)
    theirs = question.value.value < SIGNIFICANT, _published_gain(question, metric), question.value.n
    return Answer(Summary(gain.n, p_value(mine, base)), same_finding(gain, *theirs), cell.records + other.records)


def same_finding(gain: Summary, significant: bool, theirs: float | None, seeds: int | None) -> Verdict:
    """Whether our gain over a reference, with its interval, says what a source found.

    * Both find a difference of one sign: reproduced.
    * Neither finds one: reproduced with as many seeds as theirs; fewer would have seen less.
    * One finds one that the other does not, or of the other sign: better or worse where our interval leaves their gain
      out, ours lying above or below it.
    * Inconclusive otherwise.

    Args:
        gain: ours, positive for better; without two seeds a side it has no interval, and the verdict is single run.
        significant: whether theirs is.
        theirs: their gain; None where they do not print it: a significant one then has the sign of ours.
        seeds: how many theirs is of; None where they do not say.
    """
    if gain.low is None or gain.high is None:
        return Verdict.SINGLE_RUN
    found = gain.low > 0 or gain.high < 0
    if found and significant and (theirs is None or (theirs > 0) == (gain.low > 0)):
        return Verdict.REPRODUCED
    if not found and not significant:
        return Verdict.REPRODUCED if seeds and gain.n >= seeds else Verdict.INCONCLUSIVE
    if theirs is None or gain.low <= theirs <= gain.high:
        return Verdict.INCONCLUSIVE
    return Verdict.BETTER if theirs < gain.low else Verdict.WORSE


def _published_gain(question: Question, metric: str) -> float | None:
    """Which way the source's difference goes, by the two perplexities that it prints."""
    name = f"{question.split}.{metric}"
    mine = question.number.values.get(name)
    theirs = next((other.values[name] for other in question.references() if name in other.values), None)
    return theirs.value - mine.value if mine and theirs else None


def _slowdown(question: Question) -> Answer | None:
    """Time over that of the reference; one where the model is its own."""
    pair = question.pair()
    found = time_ratio(pair[0].records, pair[1].records) if pair else None
    if pair is None or found is None:
        return None
    ours = summarize([found.ratio])
    return Answer(ours, verdict(ours, question.value, question.number.margin), pair[0].records + pair[1].records)


def _correlation(question: Question) -> Answer | None:
    """Pearson's r of rank and perplexity over the points of the grid, each a mean over its seeds."""
    metric = question.metric.removeprefix("rank_").removesuffix("_correlation")
    grid = [
        cell
        for cell in question.section
        if cell.encoder == question.number.encoder
        and matches(cell.head, _GRID)
        and cell.answers(question.number, question.number.method)
    ]
    points: list[tuple[float, float]] = []
    records: list[Record] = []
    for cell in grid:
        rank = next((s.mean for name in _RANKS if (s := cell.summary(question.split, name)).n), None)
        score = cell.summary(question.split, metric).mean
        if rank is not None and score is not None:
            points.append((rank, score))
            records += cell.records
    ours = correlation(points)
    if ours.mean is None:
        return None
    return Answer(ours, without_side(verdict(ours, question.value, question.number.margin)), tuple(records))


def without_side(said: Verdict) -> Verdict:
    """The verdict on a value that is neither good nor bad: beyond the margin it is different."""
    return Verdict.DIFFERENT if said in (Verdict.BETTER, Verdict.WORSE) else said


# By how the metric's name ends. Which points a source leaves out as outliers is not printed, so that correlation has
# no answer.
_KINDS: Mapping[str, Callable[[Question], Answer | None]] = {
    "_gain": _gain,
    P_VALUE: _p_value,
    "slowdown": _slowdown,
    "_correlation": _correlation,
    "_correlation_without_outliers": lambda question: None,
}
