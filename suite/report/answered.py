"""Every published value that a full run of ours answers, one row a value: what a reader looks for first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from suite.records.published import Published, Value
from suite.records.record import Record
from suite.report import formatting
from suite.report.columns import Column, link_cell, short_keys
from suite.report.compare import Summary, Verdict
from suite.report.derived import P_VALUE
from suite.report.effective import EFFECTIVE, FRACTIONS
from suite.report.leaderboard import Leaderboard
from suite.report.table import render_table

# What the sources print beside perplexities, in words.
_TITLES = {
    "rank": "rank (Press, all float32)",
    **{f"{EFFECTIVE}{fraction}": f"effective rank, {fraction}" for fraction in FRACTIONS},
    "pairwise_kld": "KL divergence of two contexts",
    "ppl_gain": "perplexity below softmax",
    "slowdown": "time over softmax's",
    "seconds_per_epoch": "s/epoch",
    "gpu_peak_mib": "peak MiB",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """A value of a source, as ``test.ppl``, and ours."""

    number: Published
    name: str
    theirs: Value
    ours: Summary
    verdict: Verdict
    records: Sequence[Record]


def answered(board: Leaderboard) -> Iterator[Answered]:
    """The values that a section compares by, perplexity above all, in the order of the leaderboard."""
    for section in board.sections:
        for row in section.rows:
            ours = row.ours.get(row.split) if row.ours else None
            if row.published and row.cell and row.verdict and ours and ours.n:
                name = f"{row.split}.{section.metric}"
                yield Answered(row.published, name, row.published.values[name], ours, row.verdict, row.cell.records)


def answered_beside(board: Leaderboard) -> Iterator[Answered]:
    """The values that no section compares by: ranks, what a run took, how well it fitted."""
    for other in board.other:
        for name, theirs, ours, verdict in other.values:
            # Of one seed there is no p-value; the softmax's own time over the softmax's is 1 by definition.
            trivial = name.endswith(".slowdown") and theirs.value == 1.0
            if verdict is not None and ours.mean is not None and not trivial:
                yield Answered(other.number, name, theirs, ours, verdict, other.records)


def answered_markdown(rows: Iterable[Answered]) -> str:
    """The table, models one after the other, or nothing. Where its links lead the file's leaderboard defines."""
    found = list(rows)
    if not found:
        return ""
    models = list(dict.fromkeys(_model(one) for one in found))
    found.sort(key=lambda one: models.index(_model(one)))

    def column(title: str, cells: Iterator[str], right: bool = False) -> Column:
        return Column(title, tuple(formatting.clean(cell) for cell in cells), right)

    columns = [
        column("corpus", (one.number.dataset for one in found)),
        column("method", (one.number.method for one in found)),
        column("stage", (one.number.stage for one in found)),
        column("what", (_what(one) for one in found)),
        column("published", (formatting.published_value(one.theirs, _metric(one)) for one in found), True),
        column("ours", (formatting.summary(one.ours, _metric(one)) for one in found), True),
        column("difference", (_difference(one) for one in found), True),
        column("verdict", (_verdict(one) for one in found)),
        column("source", (formatting.source(one.number) for one in found)),
        replace(
            column("record", (short_keys(one.records) for one in found)),
            markdown=tuple(link_cell(one.records) for one in found),
        ),
    ]
    return render_table(columns, "pipe") + "\n"


def _model(one: Answered) -> tuple[str, str]:
    return one.number.dataset, one.number.method


def _metric(one: Answered) -> str:
    return one.name.split(".", 1)[1]


def _what(one: Answered) -> str:
    split, metric = one.name.split(".", 1)
    if metric.endswith(P_VALUE):
        scored = formatting.metric_title(metric.removesuffix(P_VALUE))
        return f"{split} {scored}, p against {one.number.reference.removeprefix(one.number.encoder + '/')}"
    title = _TITLES.get(metric) or formatting.metric_title(metric)
    # An epoch's time and memory are of the training split, and of no other.
    return title if split == "train" and metric in _TITLES else f"{split} {title}"


def _verdict(one: Answered) -> str:
    """With the margin in brackets where the value has its own and an interval was set against it."""
    if one.theirs.margin is None or one.verdict is Verdict.SINGLE_RUN:
        return one.verdict
    return f"{one.verdict} (± {one.theirs.width(one.number.margin):.2g})"


def _difference(one: Answered) -> str:
    # Of the same effect, more seeds have another p-value.
    if one.ours.mean is None or one.name.endswith(P_VALUE):
        return formatting.DASH
    # A gain is a difference itself, and nothing is so many percent of zero.
    if one.name.endswith("_gain") or not one.theirs.value:
        return f"{one.ours.mean - one.theirs.value:+.2f}"
    return f"{100.0 * (one.ours.mean / one.theirs.value - 1.0):+.1f} %"
