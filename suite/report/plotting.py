"""How figures look, and how they are saved: the same numbers give the same bytes, and no series needs its colour."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from suite.report.descriptions import DESCRIPTION

# Okabe and Ito's palette, told apart with every common colour blindness. Printed in black and white some share a grey,
# so lines differ in style and marker too, points in marker and bars in hatch.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#666666")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
# Of lines: a page of dots makes a megabyte of SVG.
HATCHES = ("", "////", "xxx", "|||")
# The formats of every figure: PNG for pages and previews, SVG for print and slides.
FORMATS = (".png", ".svg")
# The program that files name as their own; what carries it may be replaced and removed.
MARK = "suite report --figures"
_LOOK: Any = {
    # An SVG names its fonts; what shows it may lack the first.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "hatch.linewidth": 0.6,
    # Names of parts by content, where matplotlib would draw them at random; letters stay text, small and searchable.
    "svg.hashsalt": MARK,
    "svg.fonttype": "none",
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


def line_look(index: int, width: float = 1.4) -> dict[str, Any]:
    """Colour, style and sparse markers of a figure's line number ``index``.

    Four styles and eleven markers share no divisor: 44 lines differ without their colours. Markers of neighbours stand
    at different places, so that lines on top of each other are both seen.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[index % len(STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        # Of the length of the axes' diagonal.
        "markevery": (0.012 * (index % 10), 0.12),
        "markersize": 4.5,
        "linewidth": width,
    }


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round numbers for a logarithmic axis from ``low`` to ``high`` (both > 0), as many as there is room for."""
    ladders = [[mantissa / 100 for mantissa in range(100, 1000, step)] for step in (1, 2, 5, 10, 20)]
    ladders.append([mantissa / 10 for mantissa in (*range(10, 20, 2), *range(20, 100, 5))])
    ladders += [[1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 4, 5, 7], [1, 2, 5], [1, 3], [1]]
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    for ladder in ladders:
        ticks = [mantissa * 10.0**power for power in range(first, last + 1) for mantissa in ladder]
        ticks = [float(f"{tick:.6g}") for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    powers = [power for power in range(first, last + 2) if low <= 10.0**power <= high]
    return [10.0**power for power in powers[:: math.ceil(len(powers) / most)]]


def plain_log(axes: Axes, which: Literal["x", "y"], low: float, high: float, most: int = 9) -> None:
    """Make an axis logarithmic between two numbers, its ticks written without powers of ten."""
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(log_ticks(low, high, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def png(figure: Figure) -> bytes:
    """The figure as PNG, without date or version of a library in it, with its description (the figure's label)."""
    buffer = io.BytesIO()
    said = {DESCRIPTION: str(figure.get_label())} if figure.get_label() else {}
    figure.savefig(buffer, format="png", metadata={"Software": MARK, **said})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, as free of date and version, with the same description."""
    buffer = io.BytesIO()
    said = {DESCRIPTION: str(figure.get_label())} if figure.get_label() else {}
    figure.savefig(buffer, format="svg", metadata={"Creator": MARK, "Date": None, **said})
    return buffer.getvalue()


def is_ours(path: Path) -> bool:
    """Whether a file says that a report drew it."""
    try:
        if path.suffix == ".svg":
            return f"<dc:title>{MARK}</dc:title>" in path.read_text(encoding="utf-8")
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == MARK
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def save(figure: Figure, path: Path) -> bool:
    """Write the figure in the format that the name of the file says; whether the file changed."""
    content = {".png": png, ".svg": svg}[path.suffix](figure)
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return True
