"""What a figure shows, in a sentence made from the numbers it is drawn from: for whoever does not see it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from suite.report import formatting

# The field of a PNG file that holds the sentence.
DESCRIPTION = "Description"


def costs_sentence(
    place: str, metric: str, points: Sequence[tuple[str, float, float]], front: Sequence[str] = ()
) -> str:
    """``points`` are method, mean of the metric and seconds an epoch; ``front`` the methods of the Pareto front."""
    best, fastest = min(points, key=lambda point: point[1]), min(points, key=lambda point: point[2])
    title = formatting.metric_title(metric)

    def said(point: tuple[str, float, float]) -> str:
        return f"{point[0]} with {formatting.metric(point[1], metric)} at {formatting.cost(point[2])} s"

    both = "the lowest and the fastest is" if best == fastest else "the lowest is"
    rest = "" if best == fastest else f"; the fastest is {said(fastest)}"
    kept = f" None is as good and as fast as: {', '.join(front)}." if front else ""
    return (
        f"Mean {title} against training seconds an epoch of {len(points)} models, {place}: {both} {said(best)}{rest}."
        f"{kept}"
    )


def curve_sentence(what: str, log: str, ours: Mapping[str, Mapping[int, float]], theirs: Mapping[int, float]) -> str:
    """``ours`` are our curves by name; the last epoch that each shares with the published log speaks."""
    parts = []
    for name, values in ours.items():
        shared = values.keys() & theirs.keys()
        if shared:
            last = max(shared)
            parts.append(f"{name} {values[last]:,.2f} against {theirs[last]:,.2f} published at epoch {last:,}")
    ends = "; ".join(parts) or "they share no epoch"
    return f"Validation perplexity of {what}, by epoch over {log}, with the difference below: {ends}."


def precision_sentence(what: str, curves: Mapping[str, Mapping[int, float]]) -> str:
    """``curves`` are validation perplexities by precision and epoch; the last epoch that all share speaks."""
    shared = set.intersection(*(set(values) for values in curves.values()))
    start = f"Validation perplexity of {what}, by epoch under {len(curves)} arithmetics"
    if not shared:
        return f"{start}, which share no epoch."
    last = max(shared)
    ends = ", ".join(f"{name} {values[last]:,.2f}" for name, values in curves.items())
    return f"{start}; at epoch {last:,}, the last they share: {ends}."


def spectrum_sentence(what: str, spectra: Mapping[str, Sequence[Sequence[float]]], threshold: float = 1e-7) -> str:
    """``spectra`` are pairs of index and singular value over the largest, by method."""
    groups: dict[str, list[str]] = defaultdict(list)
    for method, pairs in spectra.items():
        below = next((index for index, value in pairs if value < threshold), None)
        last = "stay above it to the last index" if below is None else f"fall below it at about index {below:,.0f}"
        groups[last].append(method)
    said = "; ".join(f"{outcome}: {', '.join(methods)}" for outcome, methods in groups.items())
    return (
        f"Singular values of the matrix of log-probabilities of {what}, over the largest, by index. "
        f"Against a threshold of {threshold:g}: {said}."
    )


def synthetic_sentence(title: str, gaps: Mapping[str, Mapping[tuple[int, int], float]]) -> str:
    """``gaps`` are mean KL gaps by head, and by number of words and size of the embeddings."""
    places = {place for grid in gaps.values() for place in grid}
    shared = [place for place in sorted(places) if all(place in grid for grid in gaps.values())]
    means = {head: statistics.fmean(grid[place] for place in shared) for head, grid in gaps.items()} if shared else {}
    ranked = sorted(means, key=lambda head: means[head])
    sizes = f"{len({words for words, _ in places})} numbers of words and {len({size for _, size in places})} sizes"
    ends = ", ".join(f"{head} {means[head]:.3g}" for head in ranked) or "no place has all heads"
    return (
        f"Heat maps of the {title}, over {sizes}: KL gap and share of modes matched, also over the softmax's. "
        f"Mean KL gap in nats where all heads were run, lowest first: {ends}."
    )


def heads_sentence(shapes: Mapping[tuple[int, ...], Sequence[Mapping[str, Any]]], where: str) -> str:
    """``shapes`` are the benchmark's rows by (N, K, d, V); the fastest one pass speaks beside its fastest peer."""
    parts = []
    for (tokens, experts, size, words), rows in shapes.items():
        ours = [row for row in rows if row["form"] == "one pass"]
        peers = [row for row in rows if not str(row["form"]).startswith("one pass")]
        place = f"N {tokens:,}, K {experts}, d {size}, V {words:,}"
        fastest = [min(group, key=lambda row: float(row["ms"])) for group in (ours, peers) if group]
        said = [
            f"{row['form']}, {row['dtype']}, {formatting.cost(row['ms'])} ms, {formatting.cost(row['peak_mib'])} MiB"
            for row in fastest
        ]
        parts.append(f"{place}: {' against '.join(said) or 'no one pass and no peer'}")
    return f"Bars of the time and memory of a head's loss by shape, {where}; the fastest of each. {'; '.join(parts)}."


def forest_sentence(dataset: str, metric: str, lines: Sequence[tuple[str, str]]) -> str:
    """``lines`` are what each is of and what it says."""
    title = formatting.metric_title(metric)
    said = "; ".join(f"{of}: {what}" for of, what in lines)
    return f"Ours against published {title} on {dataset}, a line for each number that a run of ours answers. {said}."


def experts_sentence(
    place: str,
    metric: str,
    quality: Mapping[str, Mapping[int, float]],
    ranks: Mapping[str, Mapping[int, float]],
) -> str:
    """``quality`` and ``ranks`` are means by line and number of experts; a line's fewest and most experts speak."""
    title = formatting.metric_title(metric)
    parts = []
    for name, values in quality.items():
        found = [f"{title} {formatting.metric(values[k], metric)} with {k}" for k in _ends(values)]
        found += [f"rank {formatting.metric(ranks[name][k], 'rank')} with {k}" for k in _ends(ranks.get(name, {}))]
        parts.append(f"{name}: {', '.join(found)}")
    return f"Mean {title} and rank by number of experts, {place}. {'; '.join(parts)}."


def _ends(values: Mapping[int, float]) -> list[int]:
    return sorted({min(values), max(values)}) if values else []


def functions_sentence(place: str, learned: Mapping[str, Sequence[float]]) -> str:
    """``learned`` are a method's lowest and highest logit, and the least and greatest slope among most of them.

    The two slopes again of the function as it was built, where that is known.
    """
    said = "; ".join(
        f"{method}: logits {low:.3g} to {high:.3g}, slopes {least:.3g} to {most:.3g}"
        + (f", as built {built[0]:.3g} to {built[1]:.3g}" if built else "")
        for method, (low, high, least, most, *built) in learned.items()
    )
    return (
        f"Learned pointwise functions beside the identity, and their slopes where 98 % of logits lie, {place}. {said}."
    )
