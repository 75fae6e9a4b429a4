"""What records say of a claim: one finding a comparison, judged by the claim's rules. A pure function of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from suite.records.record import Record
from suite.report import formatting
from suite.report.averaging import averaging_starts
from suite.report.cells import Cell, costs, group
from suite.report.claims import AveragingMatters, Claim, Compare, CostRatio, Equal, FullRank, RankAtMost, Rule
from suite.report.compare import Summary, difference, summarize
from suite.report.pairing import (
    SPLITS,
    Apart,
    cost_pair,
    fits,
    matches,
    of_quality,
    output_dimension,
    pairs,
    place,
    said,
    values,
    with_interval,
)
from suite.report.tasks import Tasks, is_current

ONE_SEED = "fewer than two seeds a side give no interval"


class Outcome(StrEnum):
    """What one finding says of the claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "undecided"


class Judgement(StrEnum):
    """What all findings say together."""

    HOLDS = "holds"
    FAILS = "does not hold"
    MIXED = "mixed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: where it was made, its numbers, what it says, and the records behind it."""

    place: str
    text: str
    outcome: Outcome
    records: tuple[Record, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its evidence; ``why`` says what an undecided one lacks."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: Judgement
    why: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the rules may look at: cells of full runs, cells of shortened ones too, benchmark rows.

    What does not depend on how long a model was trained (the bound on a rank, the cost of an epoch) may be read off a
    shortened run; perplexities may not.
    """

    cells: Sequence[Cell]
    with_short: Sequence[Cell]
    benchmarks: Sequence[Mapping[str, Any]] = ()
    apart: Apart = field(default_factory=Apart)

    @classmethod
    def of(
        cls, records: Iterable[Record], tasks: Tasks | None = None, benchmarks: Sequence[Mapping[str, Any]] = ()
    ) -> Evidence:
        """Finished runs of current task versions; smoke runs never count."""
        finished = [record for record in records if record.status == "finished" and is_current(record, tasks or {})]
        full = [record for record in finished if record.scope == "full"]
        long = [record for record in finished if record.scope != "smoke"]
        apart = Apart()
        return cls(group(full, flat=apart.flat), group(long, flat=apart.flat), benchmarks, apart)


def judge(claim: Claim, evidence: Evidence) -> Judged:
    """The findings of a claim's rules and their verdict: as the decided ones say, mixed where they part."""
    findings = tuple(finding for rule in claim.evidence for finding in find(rule, evidence))
    decided = {finding.outcome for finding in findings} - {Outcome.OPEN}
    if len(decided) == 2:
        return Judged(claim, findings, Judgement.MIXED)
    if decided:
        return Judged(claim, findings, Judgement(decided.pop()))
    reasons = dict.fromkeys(finding.why for finding in findings if finding.why)
    return Judged(claim, findings, Judgement.UNDECIDED, "; ".join(reasons) or "no run of ours speaks of it yet")


def find(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    """The findings of one rule."""
    match rule:
        case RankAtMost():
            yield from _rank_at_most(rule, evidence)
        case FullRank():
            yield from _full_rank(rule, evidence)
        case Compare():
            yield from _compare(rule, evidence)
        case Equal():
            yield from _equal(rule, evidence)
        case CostRatio():
            yield from _cost_ratio(rule, evidence)
        case AveragingMatters():
            yield from _averaging(rule, evidence)


def _rank_at_most(rule: RankAtMost, evidence: Evidence) -> Iterator[Finding]:
    for cell, ranks in _ranks(rule.heads, rule.metric, evidence):
        size = output_dimension(cell.records[0].spec)
        if size is None:
            yield Finding(
                place(cell), f"{cell.method}: rank {_list(ranks)}", Outcome.OPEN, cell.records, "d is unknown"
            )
            continue
        bias = bool(cell.records[0].spec["head"].get("bias", True))
        bound = size + 1 + bias
        what = f"d + {1 + bias} = {bound:,}{' (the logits have a bias)' if bias else ''}"
        outcome = Outcome.HOLDS if max(ranks) <= bound else Outcome.FAILS
        yield Finding(place(cell), f"{cell.method}: rank {_list(ranks)}, bound {what}", outcome, cell.records)


def _full_rank(rule: FullRank, evidence: Evidence) -> Iterator[Finding]:
    for cell, ranks in _ranks(rule.heads, rule.metric, evidence):
        words = rule.words.get(cell.key.dataset)
        if words is None:
            continue
        rows = [value for split in SPLITS for value in cell.values(split, "tokens")]
        full = min(words, int(min(rows))) if rows else words
        outcome = Outcome.HOLDS if min(ranks) >= rule.share * full else Outcome.FAILS
        yield Finding(place(cell), f"{cell.method}: {rule.metric} {_list(ranks)} of {full:,}", outcome, cell.records)


def _ranks(heads: Sequence[str], metric: str, evidence: Evidence) -> Iterator[tuple[Cell, list[float]]]:
    for cell in evidence.with_short:
        if matches(cell.head, heads) and (ranks := values(cell, metric)):
            yield cell, ranks


def _compare(rule: Compare, evidence: Evidence) -> Iterator[Finding]:
    sign = 1 if rule.better == "lower" else -1
    for cell, other in pairs(evidence.cells, rule.heads, rule.than, rule.same, evidence.apart):
        ours, theirs = values(cell, rule.metric), values(other, rule.metric)
        if not ours or not theirs or not of_quality(cell) or not fits(cell, other, rule.at_most_size):
            continue
        found = difference(ours, theirs)
        low, high = found.low, found.high
        if low is None or high is None:
            outcome, why = Outcome.OPEN, ONE_SEED
        elif low <= 0 <= high:
            outcome, why = Outcome.OPEN, "the interval of the difference holds zero"
        else:
            outcome, why = (Outcome.HOLDS if sign * low < 0 else Outcome.FAILS), ""
        yield Finding(place(cell), said(cell, other, rule.metric, found), outcome, cell.records + other.records, why)


def _equal(rule: Equal, evidence: Evidence) -> Iterator[Finding]:
    for cell, other in pairs(evidence.cells, rule.heads, rule.than, rule.same, evidence.apart):
        ours, theirs = values(cell, rule.metric), values(other, rule.metric)
        if not ours or not theirs or not of_quality(cell):
            continue
        found = difference(ours, theirs)
        margin = rule.margin * abs(summarize(theirs).mean or 0.0)
        outcome, why = Outcome.OPEN, f"the interval reaches beyond ± {100 * rule.margin:g} %"
        if found.low is None or found.high is None:
            why = ONE_SEED
        elif -margin <= found.low and found.high <= margin:
            outcome, why = Outcome.HOLDS, ""
        elif found.low > margin or found.high < -margin:
            outcome, why = Outcome.FAILS, ""
        text = f"{said(cell, other, rule.metric, found)}; margin ± {formatting.metric(margin, rule.metric)}"
        yield Finding(place(cell), text, outcome, cell.records + other.records, why)


def _cost_ratio(rule: CostRatio, evidence: Evidence) -> Iterator[Finding]:
    for cell, other in pairs(evidence.with_short, rule.heads, rule.than, rule.same, evidence.apart):
        if not matches(cell.key.dataset, rule.datasets):
            continue
        both = cost_pair(cell.records, other.records)
        if both is None:
            if costs(cell.records).seconds_per_epoch and costs(other.records).seconds_per_epoch:
                text = f"{cell.head} / {other.head}: not comparable"
                why = "seconds of different devices or versions of the code"
                yield Finding(place(cell), text, Outcome.OPEN, cell.records + other.records, why)
            continue
        mine, base = both
        numbers = (mine.seconds_per_epoch or 0.0, base.seconds_per_epoch or 0.0)
        text = f"{_ratio(cell.head, other.head, numbers, 's/epoch')}, {mine.device}"
        known = mine.exclusive and base.exclusive
        outcome = _within(rule, numbers) if known else Outcome.OPEN
        why = "" if known else "no run could tell whether it was alone on the machine"
        yield Finding(place(cell), text, outcome, cell.records + other.records, why)
    for row, other_row, unit in _benchmark_pairs(rule, evidence.benchmarks):
        numbers = (float(row[unit]), float(other_row[unit]))
        what = ", ".join(str(row[key]) for key in ("precision", "device") if key in row)
        text = f"{_ratio(row['head'], other_row['head'], numbers, unit.replace('_', ' '))}, {what}".rstrip(", ")
        yield Finding(f"{row['dataset']} · {row['file']}", text, _within(rule, numbers))


def _ratio(head: str, than: str, numbers: tuple[float, float], unit: str) -> str:
    shown = " over ".join(formatting.cost(number) for number in numbers)
    return f"{head} / {than}: {formatting.cost(numbers[0] / numbers[1])} times ({shown} {unit})"


def _within(rule: CostRatio, numbers: tuple[float, float]) -> Outcome:
    return Outcome.HOLDS if rule.low <= numbers[0] / numbers[1] <= rule.high else Outcome.FAILS


def _benchmark_pairs(
    rule: CostRatio, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """Rows of one file that differ in their head alone among what is said in words."""
    units = ("seconds_per_epoch", "ms_per_step")

    def words(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if isinstance(value, str) and key != "head"}

    for row in rows:
        if not (matches(str(row["head"]), rule.heads) and matches(str(row["dataset"]), rule.datasets)):
            continue
        for other in rows:
            unit = next((name for name in units if row.get(name) and other.get(name)), None)
            if unit and fnmatchcase(str(other["head"]), rule.than) and words(row) == words(other):
                yield row, other, unit
                break


def _averaging(rule: AveragingMatters, evidence: Evidence) -> Iterator[Finding]:
    for cell in evidence.cells:
        starts = averaging_starts(cell, rule.metric)
        if not fnmatchcase(cell.head, rule.head) or len(starts) < 2:
            continue
        means = {name: summarize(list(by_seed.values())).mean or 0.0 for name, by_seed in starts.items()}
        best, worst = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
        # One run carries all its averages, so the effect of the start is paired by seed.
        shared = starts[best].keys() & starts[worst].keys()
        moved = summarize([starts[worst][seed] - starts[best][seed] for seed in sorted(shared)])
        for other, base in pairs(evidence.cells, rule.heads, rule.head, rule.same, evidence.apart):
            found = difference(values(other, rule.metric), values(base, rule.metric))
            if base is not cell or found.mean is None:
                continue
            yield _averaging_finding(rule, (cell, other), (worst, best), moved, found)


def _averaging_finding(
    rule: AveragingMatters, cells: tuple[Cell, Cell], starts: tuple[str, str], moved: Summary, found: Summary
) -> Finding:
    cell, other = cells
    outcome, why = Outcome.OPEN, "the intervals of the two effects overlap"
    if moved.low is None or moved.high is None or found.low is None or found.high is None:
        why = ONE_SEED
    else:
        size = max(abs(found.low), abs(found.high))
        least = 0.0 if found.low <= 0 <= found.high else min(abs(found.low), abs(found.high))
        if moved.low >= size:
            outcome, why = Outcome.HOLDS, ""
        elif moved.high < least:
            outcome, why = Outcome.FAILS, ""
    text = (
        f"{cell.method} averaged from {starts[1]} instead of {starts[0]}: "
        f"{with_interval(moved, rule.metric, sign=-1)}; {said(other, cell, rule.metric, found)}"
    )
    return Finding(place(cell), text, outcome, cell.records + other.records, why)


def _list(ranks: Sequence[float]) -> str:
    low, high = (formatting.metric(value, "rank") for value in (min(ranks), max(ranks)))
    return f"{low if low == high else f'{low} to {high}'} (n = {len(ranks)})"
