"""The gate's findings as one table, and the line that says what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from tabulate import tabulate

from suite.gate.baseline import Learned
from suite.gate.findings import Finding, Verdict
from suite.report.formatting import clean, escape

_HEADERS = ("task", "cell", "what", "baseline", "now", "change", "verdict")


def render(findings: Sequence[Finding], learned: Mapping[str, Learned], markdown: bool = False) -> str:
    """The table, and under it what holds or moved.

    Args:
        findings: of every task, in order.
        learned: by task, when its numbers were learned.
        markdown: for a comment, instead of a terminal.
    """
    moved = [finding for finding in findings if finding.verdict is Verdict.MOVED]
    rows = [[clean(cell) for cell in _row(finding)] for finding in findings]
    notes = [clean(note) for note in (*_skipped(findings, learned), *_closing(findings, moved, learned))]
    if markdown:
        rows = [[escape(cell) for cell in row] for row in rows]
        notes = [escape(note, code=True) for note in notes]
        rows = [[f"**{cell}**" for cell in row] if f in moved else row for row, f in zip(rows, findings, strict=True)]
    table = tabulate(
        rows,
        headers=_HEADERS,
        tablefmt="pipe" if markdown else "simple",
        colalign=("left", "left", "left", "right", "right", "right", "left"),
        disable_numparse=True,
    )
    return "\n\n".join([table, *notes]) + "\n"


def _row(finding: Finding) -> list[str]:
    *texts, verdict = astuple(finding)
    return [*texts, str(verdict)]


def _skipped(findings: Sequence[Finding], learned: Mapping[str, Learned]) -> list[str]:
    tasks = list(dict.fromkeys(f.task for f in findings if f.verdict is Verdict.SKIPPED))
    return [
        f"{task}: operations were counted under torch {learned[task].torch} on {learned[task].machine}, which is not "
        "what runs here, and are not compared."
        for task in tasks
    ]


def _closing(findings: Sequence[Finding], moved: Sequence[Finding], learned: Mapping[str, Learned]) -> list[str]:
    tasks = list(dict.fromkeys(finding.task for finding in findings))
    if not moved:
        since = ", ".join(f"{task} since {learned[task].since}" for task in tasks)
        return [f"The gate holds: {len(findings)} numbers; {since}."]
    hit = list(dict.fromkeys(finding.task for finding in moved))
    # What moved is the last line, where a log is read first.
    return [
        f"If the change is meant: `suite check {' '.join(hit)} --update --reason TEXT`, committed with it.",
        "The gate does not hold "
        + "; ".join(
            f"since {learned[task].since}: " + ", ".join(f.sentence for f in moved if f.task == task) for task in hit
        ),
    ]
