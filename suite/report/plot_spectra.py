"""Singular values of the log-probability matrices, with the thresholds that turn them into ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from suite.records.record import Record
from suite.report.descriptions import spectrum_sentence
from suite.report.plotting import line_look, new_figure

_FLOAT32, _FLOAT64 = 2.0**-23, 2.0**-52


def spectra(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """One figure a dataset, protocol, stage and split, a line a method: its lowest seed that has a spectrum."""
    groups: dict[tuple[str, str, str], dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.scope != "full", record.seed, record.run_key)):
        for name, values in record.spectra.items():
            if values:
                groups[record.labels.dataset, record.task.protocol, name].setdefault(record.labels.method, record)
    for (dataset, protocol, name), members in sorted(groups.items()):
        yield f"spectrum-{dataset}-{protocol}-{name}", _spectrum(dataset, protocol, name, members)


def thresholds(rows: float, columns: float) -> dict[str, float]:
    """What counts as zero, over the largest singular value of a rows x columns matrix.

    The papers' threshold is that of Press et al. 2007 with float32's eps; numpy's is meant for float64.
    """
    return {
        "1e-3": 1e-3,
        "1e-5": 1e-5,
        "the papers': Press, float32": 0.5 * (rows + columns + 1) ** 0.5 * _FLOAT32,
        "1e-7": 1e-7,
        "numpy's, float64": max(rows, columns) * _FLOAT64,
    }


def _spectrum(dataset: str, protocol: str, name: str, members: dict[str, Record]) -> Figure:
    # A spectrum is named by its stage and split: "rank test".
    split = name.split()[-1]
    figure = new_figure(7.6, 5.2)
    axes = figure.subplots()
    last, lowest, rows = 1.0, 1.0, 0.0
    for index, (method, record) in enumerate(sorted(members.items())):
        places, values = zip(*record.spectra[name], strict=True)
        axes.plot(places, values, label=method, **line_look(index))
        last = max(last, *places)
        lowest = min(lowest, *(value for value in values if value > 0))
        rows = max([rows, *(metrics.get(split, {}).get("tokens", 0.0) for metrics in record.metrics.values())])
    what = f"{dataset} ({split}), {protocol}"
    figure.set_label(spectrum_sentence(what, {method: r.spectra[name] for method, r in sorted(members.items())}))
    # With fewer contexts than words the last index is their number; the thresholds then differ by a constant at most.
    lines = sorted(thresholds(max(rows, last), last).items(), key=lambda item: item[1])
    for place, (name, value) in enumerate(lines):
        axes.axhline(value, color="#000000", linewidth=0.8, linestyle=":")
        # Labels of neighbours that are close lean away from each other.
        crowded = [
            place > 0 and value < 8 * lines[place - 1][1],
            place + 1 < len(lines) and lines[place + 1][1] < 8 * value,
        ]
        lean = "bottom" if crowded == [True, False] else "top" if crowded == [False, True] else "center"
        axes.annotate(f" {name}", (1.0, value), xycoords=("axes fraction", "data"), fontsize=7.5, va=lean)
        lowest = min(lowest, value)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, last)
    axes.set_ylim(max(lowest, 1e-18) / 3, 2)
    axes.set_xlabel("index of the singular value")
    axes.set_ylabel("singular value / largest")
    axes.set_title(f"log-probabilities of {what}", fontsize=10)
    axes.legend(loc="lower left", frameon=True, edgecolor="none", framealpha=1.0)
    return figure
