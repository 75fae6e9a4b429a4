"""Learning curves: ours over a published log, and one cell under several precisions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import precision
from suite.report.descriptions import curve_sentence, precision_sentence
from suite.report.plotting import line_look, new_figure, plain_log
from suite.report.published_curves import PublishedCurve
from suite.spec.run_spec import canonical_json

Series = dict[int, float]
# A curve of fewer points shows nothing.
_FEWEST = 5
RAW = "ours, raw iterate"
OWN = "ours, the recipe's own average"


def over_published(records: Sequence[Record], curves: Sequence[PublishedCurve]) -> Iterator[tuple[str, Figure]]:
    """Our validation curve over each published log, the gap below: one figure a log and precision, the longest run."""
    for curve in curves:
        longest: dict[str, Record] = {}
        for record in records:
            if not curve.beside(record) or len(record.curves) < _FEWEST:
                continue
            kind = precision(record)
            if kind not in longest or (len(longest[kind].curves), record.run_key) < (
                len(record.curves),
                record.run_key,
            ):
                longest[kind] = record
        for kind, record in sorted(longest.items()):
            yield f"curve-{curve.name}-{kind.replace('/', '-')}", _over(record, curve, kind)


def series(record: Record, stage: int = 0) -> dict[str, Series]:
    """The validation perplexities of a run by what was scored: raw iterate, its own average, further averages."""
    found: dict[str, Series] = defaultdict(dict)
    for point in record.curves:
        epoch = int(point.get("epoch", 0))
        if int(point.get("stage", 0)) != stage:
            continue
        if "valid_ppl_raw" in point:
            found[RAW][epoch] = point["valid_ppl_raw"]
        elif "valid_ppl" in point and not point.get("averaged"):
            found[RAW][epoch] = point["valid_ppl"]
        if "valid_ppl" in point and point.get("averaged"):
            found[OWN][epoch] = point["valid_ppl"]
        for name, value in point.items():
            if name.startswith("valid_ppl@"):
                start = name.removeprefix("valid_ppl@")
                title = "the non-monotone trigger" if start == "nt" else f"epoch {start}"
                found[f"ours, averaged from {title}"][epoch] = value
    return dict(found)


def _over(record: Record, curve: PublishedCurve, kind: str) -> Figure:
    figure = new_figure(7.6, 6.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    last = max(int(point.get("epoch", 0)) for point in record.curves)
    theirs = {epoch: value for epoch, value in curve.values.items() if epoch <= last}
    upper.plot(list(theirs), list(theirs.values()), color="#000000", linewidth=3.6, alpha=0.35, label=curve.title)
    ours = series(record)
    alike = {
        name: {epoch: value for epoch, value in values.items() if _alike(name, epoch, curve)}
        for name, values in ours.items()
    }
    gaps = {
        name: {epoch: values[epoch] - theirs[epoch] for epoch in values if epoch in theirs}
        for name, values in alike.items()
    }
    for index, (name, values) in enumerate(ours.items()):
        look, gap = line_look(index, 1.1), gaps[name]
        if name == OWN:
            # It is what the published run prints, and what is looked for; the others explain it.
            look |= {"color": "#000000", "linestyle": "-", "linewidth": 2.2, "zorder": 3}
        upper.plot(list(values), list(values.values()), label=name, **look)
        lower.plot(
            list(gap), list(gap.values()), label=_gap_label(name, gap), alpha=0.5 if name == RAW else 1.0, **look
        )
    _log_perplexity(upper, [*theirs.values(), *(value for values in ours.values() for value in values.values())])
    what = f"{record.labels.method} on {record.labels.dataset}, {record.task.protocol}, {kind}, seed {record.seed}"
    upper.set_title(what, fontsize=10)
    figure.set_label(curve_sentence(what, curve.title, alike, theirs))
    upper.legend(loc="upper right")
    if curve.averaged_from is not None and curve.averaged_from <= last:
        for axes in (upper, lower):
            axes.axvline(curve.averaged_from, color="#000000", linewidth=0.8, linestyle=":")
        where = (curve.averaged_from, 0.3)
        said = " the published run averages from here on"
        upper.annotate(said, where, xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    lower.axhline(0, color="#000000", linewidth=0.8)
    widest = _widest(gaps, last)
    # What is below the differences is room for their legend; the raw iterate's noise may be cut off.
    lower.set_ylim(-2.3 * widest, 1.15 * widest)
    lower.set_ylabel("ours \N{MINUS SIGN} published\n(perplexity)")
    lower.set_xlabel("epoch")
    if any(gaps.values()):
        lower.legend(loc="lower right", fontsize=7.5, labelspacing=0.25)
    return figure


def _gap_label(name: str, gap: Series) -> str:
    """The curve's last difference in words; matplotlib leaves what starts with an underscore out of the legend."""
    if not gap:
        return "_"
    shown = formatting.signed(gap[max(gap)], "ppl").replace("-", "\N{MINUS SIGN}")
    return f"{shown} at epoch {max(gap):,}: {name.removeprefix('ours, ')}"


def _widest(gaps: Mapping[str, Series], last: int) -> float:
    """Half the height of the differences: what the averages need, else the raw iterate after its first epochs."""
    averages = [abs(gap) for name, values in gaps.items() if name != RAW for gap in values.values()]
    settled = [abs(gap) for values in gaps.values() for epoch, gap in values.items() if epoch > min(10, last // 3)]
    return max(0.5, *averages) if averages else max(0.1, *settled, 0.1)


def _alike(name: str, epoch: int, curve: PublishedCurve) -> bool:
    """Whether the published value of that epoch is of the same kind: raw before it averages, averaged from then on."""
    averaged = curve.averaged_from is not None and epoch >= curve.averaged_from
    return averaged == (name != RAW)


def by_precision(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Learning curves of one model's raw iterate under several precisions, float32 what the others are set against.

    Of each precision the longest run, whichever its task: averages, budget and looks at the validation split leave the
    iterate as it is. Curves are of the seed that has most precisions; another seed of one of them shows what a
    difference means.
    """
    groups: dict[str, dict[tuple[int, str], tuple[Record, Series]]] = defaultdict(dict)
    for record in records:
        curve = series(record).get(RAW, {})
        if len(curve) >= _FEWEST:
            members, place = groups[_trajectory(record)], (record.seed, precision(record))
            if place not in members or len(members[place][1]) < len(curve):
                members[place] = record, curve
    for members in groups.values():
        seeds = Counter(seed for seed, _ in members)
        seed = min(seeds, key=lambda seed: (-seeds[seed], seed))
        if seeds[seed] > 1:
            first, _ = members[min(place for place in members if place[0] == seed)]
            head = first.spec["head"]["name"]
            if (experts := first.spec["head"].get("experts")) is not None:
                head += f"-{experts}"
            method = f"{first.labels.encoder}/{head}"
            curves = {
                kind if own == seed else f"{kind}, seed {own}": curve
                for (own, kind), (_, curve) in sorted(members.items())
            }
            name = f"precision-{first.labels.dataset}-{method.replace('/', '-')}-s{seed}"
            yield name, _precisions(curves, f"{method} on {first.labels.dataset}, seed {seed}")


def _trajectory(record: Record) -> str:
    """What decides the raw iterate's way but for seed and precision."""
    recipe = dict(record.spec.get("recipe", {}))
    late = bool((recipe.get("averaging") or {}).get("late_learning_rate"))
    for name in ("precision", "averaging", "track_averages", "evaluation"):
        recipe.pop(name, None)
    if recipe.get("schedule", {}).get("name", "constant") == "constant":
        recipe.pop("budget", None)
    parts = {name: record.spec.get(name) for name in ("dataset", "encoder", "head", "plugins")}
    return canonical_json({**parts, "recipe": recipe, "late": late})


def _precisions(whole: Mapping[str, Series], what: str) -> Figure:
    figure = new_figure(7.6, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    reference = "float32" if "float32" in whole else min(name for name in whole if ", seed " not in name)
    base = whole[reference]
    # Beyond the last epoch of what they are set against there is nothing to compare.
    curves = {
        kind: {epoch: value for epoch, value in curve.items() if epoch <= max(base)} for kind, curve in whole.items()
    }
    shown: list[float] = []
    off: list[float] = []
    for index, (kind, values) in enumerate(sorted(curves.items())):
        look = line_look(index)
        upper.plot(list(values), list(values.values()), label=kind, **look)
        shown += values.values()
        gap = {epoch: 100 * (values[epoch] / base[epoch] - 1) for epoch in values if epoch in base}
        lower.plot(list(gap), list(gap.values()), **look)
        off += [value for epoch, value in gap.items() if epoch > 3]
    _log_perplexity(upper, shown)
    upper.set_title(f"{what}, by precision", fontsize=10)
    figure.set_label(precision_sentence(what, curves))
    upper.legend(title="recurrence/head")
    widest = max((abs(value) for value in off), default=1.0)
    lower.set_ylim(-1.15 * widest - 0.05, 1.15 * widest + 0.05)
    lower.set_ylabel(f"against {reference} (%)")
    lower.set_xlabel("epoch")
    return figure


def _log_perplexity(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers, for the part where curves differ; the first epochs may lie above it."""
    low, high = min(values), max(values)
    plain_log(axes, "y", low * 0.97, min(high * 1.05, 2.5 * low), 12)
    axes.set_ylabel("validation perplexity")
