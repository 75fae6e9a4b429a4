"""Every figure of the report, made from records and published curves alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from suite.records.record import Record
from suite.report.cells import group
from suite.report.plot_costs import quality_against_cost
from suite.report.plot_curves import by_precision, over_published
from suite.report.plot_spectra import spectra
from suite.report.plot_synthetic import synthetic
from suite.report.plotting import look, save
from suite.report.published_curves import PublishedCurve
from suite.report.tasks import Tasks, is_current

Drawn = Iterator[tuple[str, Figure]]


def draw_all(folder: Path, records: Sequence[Record], tasks: Tasks, curves: Sequence[PublishedCurve]) -> Iterator[str]:
    """Draw what the records allow into ``folder``; one line a figure, and one for each kind that has no records."""
    current = [record for record in records if is_current(record, tasks) and record.scope != "smoke"]
    full = group(record for record in current if record.status == "finished" and record.scope == "full")
    kinds: dict[str, tuple[Callable[[], Drawn], str]] = {
        "validation curve over a published log": (
            lambda: over_published(current, curves),
            "no curve of 5 points or more of the model and protocol of a published log",
        ),
        "learning curves by precision": (
            lambda: by_precision(current),
            "no two runs that differ in recipe.precision alone, with 5 points or more",
        ),
        "singular-value spectra": (lambda: spectra(current), "no record holds a spectrum"),
        "synthetic heat maps": (
            lambda: synthetic(current),
            "no full categorical runs over several numbers of words and several sizes",
        ),
        "quality against cost": (
            lambda: quality_against_cost(full, current),
            "no two full cells of one section whose seconds were measured alike",
        ),
    }
    with look():
        for title, (draw, missing) in kinds.items():
            count = 0
            for name, figure in draw():
                path = folder / re.sub(r"[^A-Za-z0-9._+-]+", "-", name)
                yield f"{'wrote' if save(figure, path) else 'unchanged'} {path}"
                count += 1
            if not count:
                yield f"skipped {title}: {missing}"
