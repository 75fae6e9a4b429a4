"""Published values that no table compares by: ranks, gains, p-values, slow-downs, what an epoch took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from suite.records.published import Published, Value
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import TRAINING, SectionKey, costs
from suite.report.columns import Column, link_cell, short_keys
from suite.report.compare import HIGHER_IS_BETTER, SIGNIFICANT, Summary, Verdict, summarize, verdict
from suite.report.derived import Answer, Question, answer, without_side
from suite.report.effective import EFFECTIVE, effective_rank
from suite.report.pairing import Apart
from suite.report.rerun import Partial
from suite.report.rows import Section, Sources, status

OTHERS_CAPTION = (
    "Ours to a gain is the softmax's mean minus the head's ± its standard error, judged by Welch's interval; p is "
    f"Welch's, and reproduced where both sides find the same head better at {SIGNIFICANT:.2g}, or neither finds a "
    "difference and ours has as many seeds, better or worse where one side finds what the other does not and our "
    "interval leaves their difference out, else inconclusive; a slow-down is time over the softmax's; a correlation is "
    "over the points of our grid, judged by Fisher's interval. An effective rank is the least that leaves out at most "
    "that fraction of the squared singular values. Train perplexity is that of the last epoch's steps, dropout and "
    "all, without the terms added to the loss. Different: beyond the margin, of a value that is neither good nor bad."
)
# The papers' rank is by Press' threshold, all in float32; ours by that name is counted at numpy's in float64.
_OUR_NAMES = {"rank": ("rank_press_float32", "rank_press"), "pairwise_kld": ("pairwise_kl",)}
_WITHOUT_SIDE = ("rank", EFFECTIVE, "pairwise_kld")
_FITTED = "train.ppl"


@dataclass(frozen=True, slots=True)
class OtherRow:
    """What one source prints of one model beside its perplexities, each value with ours where a run measured it."""

    number: Published
    values: tuple[tuple[str, Value, Summary, Verdict | None], ...]
    status: Verdict | None = None
    partial: Partial | None = None
    records: tuple[Record, ...] = ()


def other_rows(sources: Sources, sections: Sequence[Section]) -> Iterator[OtherRow]:
    """One row a published number that prints more than its section shows."""
    shown = {section.key: {f"{split}.{section.metric}" for split in section.splits} for section in sections}
    apart = Apart()
    for number in sources.published:
        key = SectionKey(number.dataset, number.protocol, number.stage)
        left = {name: value for name, value in number.values.items() if name not in shown.get(key, ())}
        if not left:
            continue
        here = [cell for cell in sources.cells if cell.key == key]
        questions = [Question(number, name, here, sources.published, apart) for name in left]
        found = [answer(question) or _measured(question) for question in questions]
        judged = [(name, left[name], one.ours, one.verdict) for name, one in zip(left, found, strict=True)]
        answered = any(one.verdict for one in found)
        records = tuple({record.run_key: record for one in found if one.verdict for record in one.records}.values())
        said, partial = (None, None) if answered else status(number, key, sources)
        yield OtherRow(number, tuple(judged), said, partial, records)


def _measured(question: Question) -> Answer:
    """What one cell's runs measured under the published name, or under ours for the same thing."""
    number, metric = question.number, question.metric
    cell = next((cell for cell in question.section if cell.answers(number)), None)
    if cell is None:
        return Answer(Summary(0), None)
    if metric in ("seconds_per_epoch", "gpu_peak_mib"):
        took = costs(cell.records, cell.key.stage)
        of_gpu = took.peak_mib if took.peak_source.startswith("NVML") else None
        cost = took.seconds_per_epoch if metric == "seconds_per_epoch" else of_gpu
        ours = Summary(0) if cost is None else summarize([cost])
    elif metric.startswith(EFFECTIVE):
        ours = effective_rank(cell, question.split, metric)
    elif question.name == _FITTED and number.stage == TRAINING:
        ours = summarize(cell.values_by(_fitted))
    else:
        names = _OUR_NAMES.get(metric, (metric,))
        ours = next((found for name in names if (found := cell.summary(question.split, name)).n), Summary(0))
    if not ours.n:
        return Answer(ours, None)
    said = verdict(ours, question.value, number.margin, metric in HIGHER_IS_BETTER)
    neither = metric.startswith(_WITHOUT_SIDE) or question.name == _FITTED
    return Answer(ours, without_side(said) if neither else said, cell.records)


def _fitted(record: Record) -> float | None:
    """How well the last epoch of the train stage fitted its text."""
    points = record.train_curve
    return points[-1].get("train_ppl") if points else None


def other_columns(others: Sequence[OtherRow]) -> list[Column]:
    """The columns of the values that no section compares by."""

    def column(title: str, cell: Callable[[OtherRow], str]) -> Column:
        return Column(title, tuple(formatting.clean(cell(row)) for row in others))

    found = [
        column("dataset", lambda row: row.number.dataset),
        column("method", lambda row: row.number.method),
        column("protocol", lambda row: row.number.protocol),
        column("stage", lambda row: row.number.stage),
        column("published", lambda row: "; ".join(f"{name} {_exact(row, name)}" for name, *_ in row.values)),
        column("ours", lambda row: "; ".join(_other_ours(row)) or formatting.DASH),
        column("verdict", _other_verdict),
        column("source", lambda row: formatting.source(row.number)),
        replace(
            column("record", lambda row: short_keys(row.records)),
            markdown=tuple(link_cell(row.records) for row in others),
        ),
    ]
    return [entry for entry in found if not entry.empty]


def _exact(row: OtherRow, name: str) -> str:
    value = row.number.values[name]
    return f"{value.value:g}" + ("" if value.sd is None else f" ± {value.sd:g}")


def _other_ours(row: OtherRow) -> list[str]:
    found = []
    for name, _, ours, said in row.values:
        if said is not None:
            found.append(f"{name} {formatting.summary(ours, name.split('.', 1)[1])}")
    return found


def _other_verdict(row: OtherRow) -> str:
    if row.status is not None:
        return row.status
    said = {name: verdict for name, *_, verdict in row.values if verdict is not None}
    if len(set(said.values())) == 1 and len(said) == len(row.values):
        return next(iter(said.values()))
    return "; ".join(f"{name} {verdict}" for name, verdict in said.items())
