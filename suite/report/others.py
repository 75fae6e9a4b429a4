"""Published values that no table compares by: ranks, gains, p-values, slow-downs, what an epoch took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suite.records.published import Published, Value
from suite.report.cells import Cell, SectionKey, costs
from suite.report.compare import HIGHER_IS_BETTER, Summary, Verdict, summarize, verdict
from suite.report.rerun import Partial
from suite.report.rows import Section, Sources, status

# The papers' rank is by Press' threshold, all in float32; ours by that name is counted at numpy's in float64.
_OUR_NAMES = {"rank": ("rank_press_float32", "rank_press"), "pairwise_kld": ("pairwise_kl",)}
_SAME_AS = "effective_rank_"


@dataclass(frozen=True, slots=True)
class OtherRow:
    """What one source prints of one model beside its perplexities, each value with ours where a run measured it."""

    number: Published
    values: tuple[tuple[str, Value, Summary, Verdict | None], ...]
    status: Verdict | None = None
    partial: Partial | None = None


def other_rows(sources: Sources, sections: Sequence[Section]) -> Iterator[OtherRow]:
    """One row a published number that prints more than its section shows."""
    shown = {section.key: {f"{split}.{section.metric}" for split in section.splits} for section in sections}
    for number in sources.published:
        key = SectionKey(number.dataset, number.protocol, number.stage)
        left = {name: value for name, value in number.values.items() if name not in shown.get(key, ())}
        if not left:
            continue
        here = [cell for cell in sources.cells if cell.key == key]
        cell = next((cell for cell in here if number.answered_by(cell.task, cell.method)), None)
        judged = []
        for name, value in left.items():
            ours = _ours(name, cell, here) if cell else Summary(0)
            metric = name.split(".", 1)[1]
            said = verdict(ours, value, number.margin, metric in HIGHER_IS_BETTER) if ours.n else None
            judged.append((name, value, ours, said))
        answered = any(said for *_, said in judged)
        yield OtherRow(number, tuple(judged), *((None, None) if answered else status(number, key, sources)))


def _ours(name: str, cell: Cell, section: Sequence[Cell]) -> Summary:
    split, metric = name.split(".", 1)
    if metric == "seconds_per_epoch":
        seconds = costs(cell.records).seconds_per_epoch
        return Summary(0) if seconds is None else summarize([seconds])
    if metric == "slowdown":
        return _slowdown(cell, section)
    if metric.startswith(_SAME_AS):
        metric = f"rank_{metric.removeprefix(_SAME_AS)}"
    found = (cell.summary(split, name) for name in _OUR_NAMES.get(metric, (metric,)))
    return next((summary for summary in found if summary.n), Summary(0))


def _slowdown(cell: Cell, section: Sequence[Cell]) -> Summary:
    """Seconds an epoch over those of the softmax of the same encoder on the same device."""
    softmax = next((other for other in section if other.method == f"{cell.encoder}/softmax"), None)
    if softmax is None:
        return Summary(0)
    mine, base = costs(cell.records), costs(softmax.records)
    if mine.device != base.device or not mine.seconds_per_epoch or not base.seconds_per_epoch:
        return Summary(0)
    return summarize([mine.seconds_per_epoch / base.seconds_per_epoch])
