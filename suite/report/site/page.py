"""The page itself: views put into templates that escape everything, under a policy that allows no network at all."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from suite.records.published import Published
from suite.records.record import Record
from suite.records.store import file_name
from suite.report import formatting
from suite.report.claims_table import CLAIMS_CAPTION, claims_columns, counted
from suite.report.columns import short_key
from suite.report.compare import Verdict
from suite.report.evidence import Finding
from suite.report.findings import Judged
from suite.report.leaderboard import Leaderboard
from suite.report.marks import Kind
from suite.report.others import other_columns
from suite.report.rerun import partial_of
from suite.report.site.pictures import load_pictures
from suite.report.site.settings import Settings
from suite.report.site.views import NO_PAPER, NO_VERDICT, SectionView, glances, section_views
from suite.report.table import CAPTION, second_hand_lines, unfinished_line
from suite.report.tasks import is_stale

PAGE = Path("site") / "index.html"
# Where there are too many rows for it, a run is its link alone; figures that do not fit are linked. No row is left out.
MAX_BYTES = 3_000_000
# A name, a note, a reason: what is longer is cut, and the record has the whole.
MAX_TEXT = 2_000
MOST_LINES = 200
_MOST_FINDINGS = 40
_MOST_LINKS = 12


class _Line(NamedTuple):
    text: str
    command: str = ""


class _Run(NamedTuple):
    """What a link to a record needs."""

    key: str
    file: str


@dataclass(frozen=True)
class Site:
    """What the page is made of: the whole leaderboard, judged claims, every record, and the folder of the figures."""

    board: Leaderboard
    judged: Sequence[Judged]
    published: Sequence[Published]
    records: Sequence[Record]
    figures: Path

    def html(self) -> str:
        """The page, with links that lead from ``site/index.html`` of the results folder.

        Raises:
            InputError: a file among the figures is no picture.
        """
        environment = _environment()
        settings = Settings()
        sections = section_views(self.board, settings)
        tables, page = (environment.get_template(name) for name in ("results.html", "page.html"))
        context = {**self._context(sections, settings), **_assets()}
        bare = ""
        for brief in (False, True):
            context |= {"brief": brief, "results": Markup(tables.render(sections=sections, brief=brief))}
            bare = page.render(context, pictures=())
            if len(bare.encode()) <= MAX_BYTES:
                break
        # The figures have what room the tables leave them.
        pictures = load_pictures(self.figures, MAX_BYTES - len(bare.encode()))
        return page.render(context, pictures=pictures) if pictures else bare

    def _context(self, sections: Sequence[SectionView], settings: Settings) -> dict[str, Any]:
        rows = [row for section in sections for table in section.tables for row in table.rows if not row.floor]
        present = {row.verdict for row in rows}
        verdicts = [verdict for verdict in Verdict if verdict in present]
        kinds = {mark.kind for row in rows for mark in row.marks}
        names = {number.paper.key: number.paper.short for number in self.published}
        papers = {row.paper for row in rows} - {NO_PAPER}
        others = other_columns(self.board.other) if self.board.other else []
        return {
            "claims": _claims(self.judged, self.published),
            "claims_caption": CLAIMS_CAPTION,
            "caption": CAPTION.replace("`", ""),
            "second_hand": second_hand_lines(self.board),
            "counts": {
                "runs": len(self.records),
                "cells": sum(bool(row.cell) for section in self.board.sections for row in section.rows),
                "published": sum(row.published is not None for row in rows),
                "stale": sum(is_stale(record, self.board.tasks) for record in self.records),
            },
            "glances": glances(sections),
            "verdicts": verdicts,
            "datasets": _options(section.dataset for section in sections),
            "heads": _options(row.head for row in rows),
            "papers": [*sorted((key, names.get(key, key)) for key in papers), (NO_PAPER, "no published number")],
            "verdict_options": [*((v, v) for v in verdicts), (NO_VERDICT, "nothing to compare with")],
            "mark_options": [(_slug(kind), kind) for kind in Kind if kind in kinds] + [("unmarked", "no mark")],
            "lists": self._lists(),
            "others": {
                "titles": [column.title for column in others],
                "rows": list(zip(*(column.cells for column in others), strict=True)),
            }
            if others
            else None,
            "settings": settings.by_kind(),
        }

    def _lists(self) -> list[tuple[str, list[_Line], int]]:
        tasks = self.board.tasks
        unfinished = []
        for record in self.board.unfinished[:MOST_LINES]:
            part = partial_of(record, tasks)
            unfinished.append(_Line(f"{unfinished_line(record)}; {part.reached}; {part.advice}:", part.command))
        retired = [
            _Line(f"{r.name}: version {r.task.version} of the task, stale: its file is at {tasks[r.task.name].version}")
            for r in self.board.retired[:MOST_LINES]
        ]
        found = [
            ("Runs that did not finish", unfinished, len(self.board.unfinished) - len(unfinished)),
            ("Runs of retired task versions", retired, len(self.board.retired) - len(retired)),
        ]
        return [entry for entry in found if entry[1]]


def _options(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in sorted(set(values) - {""})]


def _claims(judged: Sequence[Judged], published: Sequence[Published]) -> list[dict[str, Any]]:
    text, papers, evidence, verdict = claims_columns(judged, published, counted)
    return [
        {
            "text": text.cells[place],
            "papers": papers.cells[place],
            "verdict": one.verdict,
            "rest": verdict.cells[place].removeprefix(one.verdict).lstrip(": "),
            "evidence": evidence.cells[place],
            "note": one.claim.note,
            "findings": [_finding(finding) for finding in one.findings[:_MOST_FINDINGS]],
            "more": max(0, len(one.findings) - _MOST_FINDINGS),
        }
        for place, one in enumerate(judged)
    ]


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "place": finding.place,
        "text": finding.text,
        "outcome": finding.outcome,
        "why": finding.why,
        "runs": [_run(record) for record in finding.records[:_MOST_LINKS]],
        "more": max(0, len(finding.records) - _MOST_LINKS),
    }


def _run(record: Record) -> _Run:
    return _Run(short_key(record), file_name(record))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("suite.report.site", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
    )
    environment.filters.update(slug=_slug, source=lambda number: formatting.source(number).rstrip("*"), run=_run)
    environment.globals.update(records="../records", figures="../figures", root="..")
    environment.globals.update(dash=formatting.DASH, none_here=NO_VERDICT)
    return environment


def _shown(value: object) -> object:
    """Every value on its way into the page: on one line, printable and bounded; markup of our own as it is."""
    if isinstance(value, Markup):
        return value
    text = formatting.clean(str(value))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … (cut)"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def _assets() -> dict[str, Markup | str]:
    """Style and script with the policy that allows these two by hash, pictures within the page, and nothing else."""
    here = files("suite.report.site")
    css, js = (here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(js)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(css), "js": Markup(js), "policy": policy}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
