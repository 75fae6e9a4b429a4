"""Every page of the report, written in one go: leaderboard, claims, costs, what a head is worth, what to run again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.records.files import atomic_write
from suite.records.published import Published
from suite.records.record import Record
from suite.report.answered import answered, answered_beside, answered_markdown
from suite.report.averaging import averaging_markdown
from suite.report.benchmarks import load_benchmarks
from suite.report.claims import Claim
from suite.report.claims_table import claims_markdown, claims_short
from suite.report.costs import costs_markdown
from suite.report.evidence import Evidence
from suite.report.files import has_block, update_block, write_csv
from suite.report.findings import judge
from suite.report.latex import latex
from suite.report.leaderboard import Leaderboard, build, merge_tables
from suite.report.promises import promises_markdown
from suite.report.ranks import ranks_markdown
from suite.report.reproduce import reproduce_markdown
from suite.report.site.page import PAGE, Site
from suite.report.table import markdown
from suite.report.tasks import Tasks, is_current
from suite.report.worth import worth_markdown, worths

# A page for people: longer tables are in the results folder.
_README_ROWS = 40
_MACHINES = (
    "Seconds and memory are of each side's own machine, arithmetic and torch, so that their difference is no verdict "
    "on a head; times over the softmax's are of one machine a side."
)
_NOTHING_YET = "No run of ours speaks of this yet."


@dataclass(frozen=True)
class Report:
    """What every page is made of, beside the benchmarks in the results folder; nothing else decides a character."""

    results: Path
    records: Sequence[Record]
    published: Sequence[Published]
    tasks: Tasks
    claims: Sequence[Claim]

    def write(self, into: Sequence[Path] = ()) -> Iterator[Path]:
        """Write the pages of the results folder, ``leaderboard.csv`` and ``.tex`` and the web page, then ``into``.

        A file of ``into`` must have the leaderboard's markers; those of the published numbers that are answered, the
        claims, heads, costs and promises (``torture``) are filled where they are.

        Raises:
            InputError: a file cannot be read, its markers are wrong, a benchmark or ``torture.json`` is no table, or a
                figure is no picture.
        """
        board = build(self.records, self.published, tasks=self.tasks, show="all")
        evidence = Evidence.of(self.records, self.tasks, load_benchmarks(self.results / "benchmarks"))
        judged = [judge(claim, evidence) for claim in self.claims]
        current = [record for record in self.records if is_current(record, self.tasks)]
        heads = worths(evidence.cells, current, evidence.apart)
        worth = worth_markdown(heads)
        averaging = averaging_markdown(evidence.longest, published=merge_tables(self.published))
        ranks = ranks_markdown(evidence.longest)
        pages = {
            "LEADERBOARD.md": ("leaderboard", "Leaderboard", _leaderboard(board)),
            "CLAIMS.md": (
                "claims",
                "What the papers claim, and what we found",
                claims_markdown(judged, self.published),
            ),
            "COSTS.md": ("costs", "Time and memory", costs_markdown(self.results) or _NOTHING_YET),
            "HEADS.md": ("heads", "What a head is worth, and when to average", _heads(worth, averaging, ranks)),
            "REPRODUCE.md": (
                "reproduce",
                "Who can reproduce what, from which commit",
                reproduce_markdown(self.records) or _NOTHING_YET,
            ),
        }
        for file, (name, title, text) in pages.items():
            update_block(self.results / file, text, title, name)
            yield self.results / file
        write_csv(board, self.results / "leaderboard.csv")
        yield self.results / "leaderboard.csv"
        atomic_write(self.results / "leaderboard.tex", latex(board))
        yield self.results / "leaderboard.tex"
        site = Site(board, judged, self.published, self.records, self.results / "figures")
        atomic_write(self.results / PAGE, site.html())
        yield self.results / PAGE
        mine = build(self.records, self.published, tasks=self.tasks, show="ours") if into else board
        for path in into:
            folder = Path(os.path.relpath(self.results / "records", path.parent)).as_posix()
            update_block(path, markdown(mine, folder, _README_ROWS))
            blocks = {
                "answered": answered_markdown(answered(board)) or _NOTHING_YET,
                "claims": claims_short(judged, self.published),
                "heads": worth_markdown(heads, None, _README_ROWS) or _NOTHING_YET,
            }
            blocks["costs"] = costs_markdown(self.results, brief=True) or _NOTHING_YET
            blocks["torture"] = promises_markdown(self.results / "torture.json")
            for name, text in blocks.items():
                if has_block(path, name):
                    update_block(path, text, name=name)
            yield path


def _leaderboard(board: Leaderboard) -> str:
    beside = answered_markdown(answered_beside(board))
    asked = answered_markdown(answered(board))
    parts = ["## Published numbers that our runs answer", asked or _NOTHING_YET]
    parts += ["## What sources print beside, and our runs answer", _MACHINES, beside] if beside else []
    return "\n\n".join(part.strip() for part in (*parts, "## Every published number and every run", markdown(board)))


def _heads(worth: str, averaging: str, ranks: str) -> str:
    parts = ["## Which head is worth its cost", worth or _NOTHING_YET]
    parts += ["## When averaging should start", averaging or _NOTHING_YET]
    parts += ["## Rank at every threshold", ranks or _NOTHING_YET]
    return "\n\n".join(part.strip() for part in parts)
