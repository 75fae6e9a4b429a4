"""How figures look, and how they are saved: the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from suite.report.descriptions import DESCRIPTION

# Okabe and Ito's palette, told apart with every common colour blindness; lines differ in style or marker too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#666666")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def look() -> Iterator[None]:
    """The look of every figure: matplotlib's defaults and ours, nothing of a user's own configuration."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches that fits its own labels."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG, without date or version of the program in it, with its description (the figure's label)."""
    buffer = io.BytesIO()
    said = {DESCRIPTION: str(figure.get_label())} if figure.get_label() else {}
    figure.savefig(buffer, format="png", metadata={"Software": None, **said})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> bool:
    """Write the figure; whether the file changed."""
    content = png(figure)
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return True
