"""The claims table as Markdown: whole for ``results/CLAIMS.md``, and a short one for the README."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set

from suite.records.published import Published
from suite.report import formatting
from suite.report.cells import SectionKey
from suite.report.columns import Column, link_cell
from suite.report.evidence import Finding, Outcome
from suite.report.findings import Judged
from suite.report.table import link_definitions, render_table

CLAIMS_CAPTION = (
    "Each claim of the papers, judged by our records alone. A comparison counts for or against the claim where its "
    "95 % interval decides it (Welch's for differences of means over seeds); a claim holds where every comparison that "
    "decides does, and is mixed where they part. Finished full runs only; ranks and times also from shortened ones. "
    "Runs that several tasks train alike count once. Runs that compare arithmetics or optimisers (protocols precision "
    "and optimizer-*) are no evidence about heads; the leaderboard has them."
)


def claims_markdown(judged: Sequence[Judged], published: Sequence[Published], records: str = "records") -> str:
    """The whole table: every claim, then its evidence, comparison by comparison, with links to the records."""
    parts = [formatting.escape(CLAIMS_CAPTION), render_table(claims_columns(judged, published, _told), "pipe")]
    for one in judged:
        parts.append(f"### {formatting.escape(one.claim.claim)}")
        said = [f"**{one.verdict}**" + (f": {formatting.escape(one.why)}" if one.why else "")]
        said += [formatting.escape(one.claim.note)] if one.claim.note else []
        parts.append(" · ".join(said))
        if one.findings:
            parts.append("\n".join(f"- {_line(finding)}" for finding in one.findings))
    linked = [record for one in judged for finding in one.findings for record in finding.records]
    return "\n\n".join([*parts, *link_definitions(linked, records)]) + "\n"


def claims_short(judged: Sequence[Judged], published: Sequence[Published]) -> str:
    """One row a claim, for the README: who, what, verdict, and how many comparisons say so."""
    return render_table(claims_columns(judged, published, counted), "pipe") + "\n"


def claims_columns(
    judged: Sequence[Judged], published: Sequence[Published], evidence: Callable[[Judged], str]
) -> list[Column]:
    """Claim, who published it, evidence in short, verdict: a row a claim."""
    papers = {number.paper.key: number.paper.short for number in published}
    protocols = defaultdict(set)
    for number in published:
        protocols[number.dataset].add(number.protocol)
    return [
        Column("claim", tuple(formatting.clean(one.claim.claim) for one in judged)),
        Column("published by", tuple(", ".join(papers.get(key, key) for key in one.claim.papers) for one in judged)),
        Column("evidence", tuple(formatting.clean(evidence(one)) for one in judged)),
        Column("verdict", tuple(_verdict(one, protocols) for one in judged)),
    ]


def _verdict(one: Judged, protocols: Mapping[str, Set[str]]) -> str:
    """The verdict, and on which datasets: a small language is not Penn Treebank.

    Where the same head on two encoders of one section says two things, the encoder is named.
    """
    said: dict[tuple[SectionKey | None, str], dict[str, set[Outcome]]] = defaultdict(lambda: defaultdict(set))
    for finding in one.findings:
        head, encoder = _labels(finding)
        said[finding.key, head][encoder].add(finding.outcome)

    def part(finding: Finding) -> bool:
        return len(set(map(frozenset, said[finding.key, _labels(finding)[0]].values()))) > 1

    decisive = [finding for finding in one.findings if finding.outcome.decides]
    places = sorted({_place(finding, protocols, named=part(finding)) for finding in decisive})
    on = f" on {', '.join(places)}" if places else ""
    return formatting.clean(f"{one.verdict}{on}" + (f": {one.why}" if one.why else ""))


def _labels(finding: Finding) -> tuple[str, str]:
    """Of the head that was judged, and of its encoder."""
    of = finding.records[0].labels if finding.records else None
    return (of.head, of.encoder) if of else ("", "")


def _place(finding: Finding, protocols: Mapping[str, Set[str]], named: bool) -> str:
    """The dataset, with the protocol where the papers have numbers on it and none by that protocol: it is our own."""
    if finding.key is None or finding.key.protocol in protocols.get(finding.dataset, {finding.key.protocol}):
        return finding.dataset
    return f"{finding.dataset} ({finding.key.protocol}{', ' + _labels(finding)[1] if named else ''})"


def _told(one: Judged) -> str:
    """The first comparison of each outcome, and how many more say the same."""
    counts = Counter(finding.outcome for finding in one.findings)
    said = []
    for outcome in Outcome:
        if not counts[outcome]:
            continue
        first = next(finding for finding in one.findings if finding.outcome is outcome)
        more = f" and {counts[outcome] - 1} more" if counts[outcome] > 1 else ""
        said.append(f"{outcome}: {first.text} ({first.place}){more}")
    return "; ".join(said) or formatting.DASH


def counted(one: Judged) -> str:
    """``7 for, 3 against, 1 undecided``."""
    counts = Counter(finding.outcome for finding in one.findings)
    words = {Outcome.HOLDS: "for", Outcome.FAILS: "against"}
    return ", ".join(f"{counts[it]} {words.get(it, it)}" for it in Outcome if counts[it]) or formatting.DASH


def _line(finding: Finding) -> str:
    why = f" ({finding.why})" if finding.why else ""
    links = f" {link_cell(finding.records)}" if finding.records else ""
    said = formatting.clean(f"{finding.place}: {finding.text}: ")
    return f"{formatting.escape(said)} **{finding.outcome}**{formatting.escape(why)}{links}"
