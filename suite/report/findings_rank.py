"""Findings about the rank of the log-probabilities, and about what a rank is good for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from suite.report import formatting
from suite.report.cells import Cell, SectionKey
from suite.report.claims import FullRank, RankAbove, RankAtMost, RankNotNecessary, RankNotSufficient
from suite.report.compare import difference
from suite.report.evidence import Evidence, Finding, Outcome, about
from suite.report.pairing import SPLITS, fits, matches, output_dimension, pairs, said, undecided, values

_TITLES = {"rank_press": "rank (Press)"}


def rank_bound(rule: RankAtMost | RankAbove, evidence: Evidence) -> Iterator[Finding]:
    """Ranks against d + 1, or d + 2 where the logits have a bias."""
    for cell, ranks in _ranks(rule.heads, rule.metric, evidence):
        size = output_dimension(cell.records[0].spec)
        if size is None:
            yield about(cell, f"{cell.method}: rank {_list(ranks)}", Outcome.OPEN, why="d is unknown")
            continue
        bias = bool(cell.records[0].spec["head"].get("bias", True))
        bound = size + 1 + bias
        what = f"d + {1 + bias} = {bound:,}{' (the logits have a bias)' if bias else ''}"
        holds = max(ranks) <= bound if isinstance(rule, RankAtMost) else min(ranks) > bound
        outcome = Outcome.HOLDS if holds else Outcome.FAILS
        yield about(cell, f"{cell.method}: rank {_list(ranks)}, bound {what}", outcome)


def full_rank(rule: FullRank, evidence: Evidence) -> Iterator[Finding]:
    """Ranks against the number of words."""
    for cell, ranks in _ranks(rule.heads, rule.metric, evidence):
        words = rule.words.get(cell.key.dataset)
        if words is None:
            continue
        rows = [value for split in SPLITS for value in cell.values(split, "tokens")]
        full = min(words, int(min(rows))) if rows else words
        outcome = Outcome.HOLDS if min(ranks) >= rule.share * full else Outcome.FAILS
        title = _TITLES.get(rule.metric, rule.metric)
        yield about(cell, f"{cell.method}: {title} {_list(ranks)} of {full:,}", outcome)


def rank_and_gain(rule: RankNotSufficient | RankNotNecessary, evidence: Evidence) -> Iterator[Finding]:
    """Heads against a reference of low rank: one witness is enough, and where there is one only witnesses are told.

    A head of higher rank that is worse shows that rank does not suffice, one of no higher rank that is better that it
    need not be. A head whose gain comes with a higher rank is what both would have as well.
    """
    by_section: dict[SectionKey, list[Finding]] = defaultdict(list)
    for cell, other in pairs(evidence.cells, rule.heads, rule.than, rule.same, evidence.apart):
        ranks, base = values(cell, rule.rank), values(other, rule.rank)
        ours, theirs = values(cell, rule.metric), values(other, rule.metric)
        if (
            not (ranks and base and ours and theirs)
            or not cell.key.of_quality
            or not fits(cell, other, rule.at_most_size)
        ):
            continue
        higher = min(ranks) >= rule.times * max(base)
        found = difference(ours, theirs)
        why = undecided(found)
        better = not why and (found.mean or 0.0) < 0
        if better == higher and not why:
            # A head of no higher rank that is worse says nothing at all.
            if not higher:
                continue
            why = "its gain comes with a higher rank"
        elif higher != isinstance(rule, RankNotSufficient):
            continue
        outcome = Outcome.OPEN if why else Outcome.HOLDS
        text = f"{said(cell, other, rule.metric, found)}; rank {_range(ranks)} against {_range(base)}"
        by_section[cell.key].append(about(cell, text, outcome, other.records, why))
    for findings in by_section.values():
        yield from [finding for finding in findings if finding.outcome is Outcome.HOLDS] or findings


def _ranks(heads: Sequence[str], metric: str, evidence: Evidence) -> Iterator[tuple[Cell, list[float]]]:
    for cell in evidence.longest:
        if cell.key.of_quality and matches(cell.head, heads) and (ranks := values(cell, metric)):
            yield cell, ranks


def _list(ranks: Sequence[float]) -> str:
    return f"{_range(ranks)} (n = {len(ranks)})"


def _range(ranks: Sequence[float]) -> str:
    low, high = (formatting.metric(value, "rank") for value in (min(ranks), max(ranks)))
    return low if low == high else f"{low} to {high}"
