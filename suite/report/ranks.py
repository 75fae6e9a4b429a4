"""Rank at every threshold: how much of a head's rank is there, and how much a threshold or a rounding makes."""

from __future__ import annotations

from collections.abc import Sequence

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import Cell
from suite.report.columns import Column, link_cell
from suite.report.effective import EFFECTIVE, FRACTIONS, effective_rank
from suite.report.table import link_definitions, render_table

RANKS_CAPTION = (
    "Rank of the matrix of log p(word | context) over the test split, mean ± standard deviation (number of seeds). "
    "float64: the head recomputed in float64, singular values above numpy's tolerance. 1e-3 and its like: above that "
    "fraction of the largest. Effective: the least rank that leaves out at most that fraction of the squared singular "
    "values; where a run did not count them, by the 200 at most that its record keeps. Press: the papers' threshold, "
    "on float64 values and, as the papers took them, on float32 ones. log(p + 1e-8): the float64 rank of what training "
    "logs, which is close to full whatever the head. Experts used: exp of the entropy of a mixture's mean weights; at "
    "once: of its weights in one context, averaged; 1 to K."
)
_TITLES = {
    "rank": "float64",
    "rank_1e-7": "1e-7",
    "rank_1e-5": "1e-5",
    "rank_1e-4": "1e-4",
    "rank_1e-3": "1e-3",
    "rank_press": "Press",
    "rank_press_float32": "Press, float32",
    "rank_eps_trap": "log(p + 1e-8)",
}
_EFFECTIVE = {f"{EFFECTIVE}{fraction}": f"effective, {fraction}" for fraction in FRACTIONS}
_EXPERTS = {"experts_used": "experts used", "experts_at_once": "at once"}


def ranks_markdown(cells: Sequence[Cell], records: str = "records") -> str:
    """One table a dataset, protocol and stage, a row a cell; empty where no run took a rank."""
    parts: list[str] = []
    linked: list[Record] = []
    for key in dict.fromkeys(cell.key for cell in cells):
        here = [cell for cell in cells if cell.key == key and cell.values("test", "rank")]
        if here:
            parts += [f"### {formatting.escape(' · '.join(key))}", render_table(_columns(here), "pipe")]
            linked += [record for cell in here for record in cell.records]
    if not parts:
        return ""
    return "\n\n".join([formatting.escape(RANKS_CAPTION), *parts, *link_definitions(linked, records)]) + "\n"


def _columns(cells: Sequence[Cell]) -> list[Column]:
    found = [Column("method", tuple(formatting.clean(cell.method) for cell in cells))]
    found += [
        Column(title, tuple(formatting.summary(cell.summary("test", name), "rank") for cell in cells), right=True)
        for name, title in _TITLES.items()
    ]
    found += [
        Column(
            title, tuple(formatting.summary(effective_rank(cell, "test", name), "rank") for cell in cells), right=True
        )
        for name, title in _EFFECTIVE.items()
    ]
    found += [
        Column(title, tuple(formatting.summary(cell.summary("test", name), name) for cell in cells), right=True)
        for name, title in _EXPERTS.items()
    ]
    links = tuple(link_cell(cell.records) for cell in cells)
    found.append(Column("record", links, markdown=links))
    return [column for column in found if not column.empty]
