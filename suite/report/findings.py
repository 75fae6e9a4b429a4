"""What records say of a claim: one finding a comparison, judged by the claim's rules. A pure function of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from suite.report import formatting
from suite.report.averaging import start_pair
from suite.report.cells import Cell
from suite.report.claims import (
    AveragingMatters,
    Claim,
    Compare,
    CostRatio,
    Equal,
    FullRank,
    RankAbove,
    RankAtMost,
    RankNotNecessary,
    RankNotSufficient,
    Rule,
)
from suite.report.compare import Summary, difference, summarize
from suite.report.evidence import Evidence, Finding, Outcome, about, distinct
from suite.report.findings_cost import cost_ratio
from suite.report.findings_rank import full_rank, rank_and_gain, rank_bound
from suite.report.pairing import ONE_SEED, fits, matches, pairs, said, undecided, values, with_interval


class Judgement(StrEnum):
    """What all findings say together."""

    HOLDS = "holds"
    FAILS = "does not hold"
    MIXED = "mixed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its evidence; ``why`` says what an undecided one lacks."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: Judgement
    why: str = ""


def judge(claim: Claim, evidence: Evidence) -> Judged:
    """The findings of a claim's rules and their verdict: as the decided ones say, mixed where they part."""
    findings = tuple(finding for rule in claim.evidence for finding in find(rule, evidence))
    decided = {finding.outcome for finding in findings if finding.outcome.decides}
    if len(decided) == 2:
        return Judged(claim, findings, Judgement.MIXED)
    if decided:
        return Judged(claim, findings, Judgement(decided.pop()))
    reasons = dict.fromkeys(finding.why for finding in findings if finding.why)
    return Judged(claim, findings, Judgement.UNDECIDED, "; ".join(reasons) or "no run of ours speaks of it yet")


def find(rule: Rule, evidence: Evidence) -> list[Finding]:
    """The findings of one rule, each run counted once; a time taken twice is two times, and counts as such."""
    match rule:
        case RankAtMost() | RankAbove():
            return distinct(rank_bound(rule, evidence))
        case FullRank():
            return distinct(full_rank(rule, evidence))
        case RankNotSufficient() | RankNotNecessary():
            return distinct(rank_and_gain(rule, evidence))
        case Compare():
            return distinct(_compare(rule, evidence))
        case Equal():
            return distinct(_equal(rule, evidence))
        case CostRatio():
            return list(cost_ratio(rule, evidence))
        case AveragingMatters():
            return distinct(_averaging(rule, evidence))


def _judged_pairs(rule: Compare | Equal, evidence: Evidence) -> Iterator[tuple[Cell, Cell]]:
    """The pairs that a rule means, where both sides have the metric."""
    for cell, other in pairs(evidence.cells, rule.heads, rule.than, rule.same, evidence.apart):
        meant = matches(cell.key.dataset, rule.datasets) and all(
            matches(one.encoder, rule.encoders) and values(one, rule.metric) for one in (cell, other)
        )
        if meant and cell.key.of_quality and fits(cell, other, rule.at_most_size):
            yield cell, other


def _compare(rule: Compare, evidence: Evidence) -> Iterator[Finding]:
    sign = 1 if rule.better == "lower" else -1
    for cell, other in _judged_pairs(rule, evidence):
        found = difference(values(cell, rule.metric), values(other, rule.metric))
        aside, why = _not_counted(rule, other), undecided(found)
        better = sign * (found.mean or 0.0) < 0
        outcome = Outcome.OPEN if why else Outcome.HOLDS if better else Outcome.FAILS
        text = said(cell, other, rule.metric, found)
        yield about(cell, text, Outcome.ASIDE if aside else outcome, other.records, aside or why)


def _not_counted(rule: Compare, other: Cell) -> str:
    """Why a comparison is shown and does not count: the other head is better than the claim supposes."""
    for metric, limit in rule.than_below.items():
        mean = summarize(values(other, metric)).mean
        if mean is None or mean >= limit:
            title, bound = metric.replace("_", " "), formatting.metric(limit, metric)
            has = formatting.DASH if mean is None else formatting.metric(mean, metric)
            return f"{title} of {other.method} {has}, not below {bound}"
    return ""


def _equal(rule: Equal, evidence: Evidence) -> Iterator[Finding]:
    for cell, other in _judged_pairs(rule, evidence):
        theirs = values(other, rule.metric)
        found = difference(values(cell, rule.metric), theirs)
        margin = rule.margin * abs(summarize(theirs).mean or 0.0)
        if found.low is None or found.high is None:
            outcome, why = Outcome.OPEN, ONE_SEED
        elif (found.low >= -margin or rule.or_lower) and (found.high <= margin or rule.or_higher):
            outcome, why = Outcome.HOLDS, ""
        elif (found.high < -margin and not rule.or_lower) or (found.low > margin and not rule.or_higher):
            outcome, why = Outcome.FAILS, ""
        else:
            side = "lies below zero and " if found.high < 0 else "lies above zero and " if found.low > 0 else ""
            outcome, why = Outcome.OPEN, f"the interval {side}reaches beyond ± {100 * rule.margin:g} %"
        text = f"{said(cell, other, rule.metric, found)}; margin ± {formatting.metric(margin, rule.metric)}"
        yield about(cell, text, outcome, other.records, why)


def _averaging(rule: AveragingMatters, evidence: Evidence) -> Iterator[Finding]:
    for cell in evidence.cells:
        starts = start_pair(cell, rule.metric) if fnmatchcase(cell.head, rule.head) else None
        if starts is None:
            continue
        first, last, differences = starts
        start = f"{cell.method} averaged from {last} instead of {first.removeprefix('epoch ')}"
        moved = summarize(differences)
        for other, base in pairs(evidence.cells, rule.heads, rule.head, rule.same, evidence.apart):
            found = difference(values(other, rule.metric), values(base, rule.metric))
            if base is not cell or found.mean is None:
                continue
            yield _averaging_finding(rule, (cell, other), start, moved, found)


def _averaging_finding(
    rule: AveragingMatters, cells: tuple[Cell, Cell], start: str, moved: Summary, found: Summary
) -> Finding:
    cell, other = cells
    outcome, why = Outcome.OPEN, "the intervals of the two effects overlap"
    by_start, by_head = _sizes(moved), _sizes(found)
    if by_start is None or by_head is None:
        why = ONE_SEED
    elif by_start[0] >= by_head[1]:
        outcome, why = Outcome.HOLDS, ""
    elif by_start[1] < by_head[0]:
        outcome, why = Outcome.FAILS, ""
    text = f"{start}: {with_interval(moved, rule.metric)}; {said(other, cell, rule.metric, found)}"
    return about(cell, text, outcome, other.records, why)


def _sizes(effect: Summary) -> tuple[float, float] | None:
    """The least and the greatest size of an effect within its interval; None without one."""
    if effect.low is None or effect.high is None:
        return None
    ends = abs(effect.low), abs(effect.high)
    return 0.0 if effect.low <= 0 <= effect.high else min(ends), max(ends)
