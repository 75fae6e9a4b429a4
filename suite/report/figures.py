"""Every figure of the report, made from records, benchmarks and published numbers alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from suite.records.published import Published
from suite.records.record import Record
from suite.report.grouping import group
from suite.report.leaderboard import build
from suite.report.plot_costs import quality_against_cost
from suite.report.plot_curves import by_precision, over_published
from suite.report.plot_experts import by_experts
from suite.report.plot_forest import forest
from suite.report.plot_functions import functions
from suite.report.plot_heads import head_costs
from suite.report.plot_spectra import spectra
from suite.report.plot_synthetic import synthetic
from suite.report.plotting import FORMATS, is_ours, look, save
from suite.report.published_curves import PublishedCurve
from suite.report.tasks import Tasks, is_current

Drawn = Iterator[tuple[str, Figure]]


@dataclass(frozen=True)
class Sources:
    """What figures are made of, beside the benchmarks in the results folder; nothing else decides a byte."""

    results: Path
    records: Sequence[Record]
    tasks: Tasks
    curves: Sequence[PublishedCurve]
    published: Sequence[Published]


def draw_all(sources: Sources, *, tidy: bool = True) -> Iterator[str]:
    """Draw what the records allow into ``figures`` of the results folder, in every format; a line for each file.

    One more for each kind that has no records. ``tidy`` removes what an earlier call drew and this one did not; files
    of anybody else's stay. It is for the records of a whole folder, not of some tasks of it.
    """
    folder = sources.results / "figures"
    drawn: set[Path] = set()
    with look():
        for title, (draw, missing) in _kinds(sources).items():
            count = 0
            for name, figure in draw():
                stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", name)
                for path in (folder / f"{stem}{suffix}" for suffix in FORMATS):
                    yield f"{'wrote' if save(figure, path) else 'unchanged'} {path}"
                    drawn.add(path)
                count += 1
            if not count:
                yield f"skipped {title}: {missing}"
    if tidy:
        for path in sorted(folder.glob("[!.]*")):
            if path.suffix in FORMATS and path not in drawn and is_ours(path):
                path.unlink()
                yield f"removed {path}"


def _kinds(sources: Sources) -> dict[str, tuple[Callable[[], Drawn], str]]:
    """How each kind is drawn, and what it lacks when it draws nothing."""
    records, curves = sources.records, sources.curves
    current = [record for record in records if is_current(record, sources.tasks) and record.scope != "smoke"]
    full = group(record for record in current if record.status == "finished" and record.scope == "full")
    return {
        "validation curve over a published log": (
            lambda: over_published(current, curves),
            "no curve of 5 points or more of the model and protocol of a published log",
        ),
        "learning curves by precision": (
            lambda: by_precision(current),
            "no two runs of one model and seed in two precisions, with 5 points or more",
        ),
        "singular-value spectra": (lambda: spectra(current), "no record holds a spectrum"),
        "learned functions": (
            lambda: functions(current),
            "no record holds a learned function; runs of this version of the suite keep it",
        ),
        "synthetic heat maps": (
            lambda: synthetic(current),
            "no full categorical runs over several numbers of words and several sizes",
        ),
        "quality against cost": (
            lambda: quality_against_cost(full, current),
            "no two full cells of one section whose seconds were measured alike",
        ),
        "quality and rank by number of experts": (
            lambda: by_experts(full),
            "no two full cells that differ in the number of experts alone",
        ),
        "ours against published": (
            lambda: forest(build(records, sources.published, tasks=sources.tasks)),
            "no published number has a run of ours that answers it, not even in part",
        ),
        "time and memory of the heads": (
            lambda: head_costs(sources.results),
            "no benchmark of the heads; `make bench-gpu` makes one",
        ),
    }
