"""Which head is worth its cost: what each gains over the softmax, and what that takes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from suite.records.metrics import PRIMARY_METRICS
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import Cell, SectionKey
from suite.report.columns import Column, link_cell
from suite.report.compare import Summary, difference, summarize
from suite.report.pairing import Apart, cost_pair, pairs, values, with_interval
from suite.report.table import link_definitions, render_table
from suite.spec.run_spec import canonical_json

BASE = "softmax"
FREE = 1.15
GAIN_A_DOUBLING = 0.01
WORTH_CAPTION = (
    "Every head beside the softmax of the same dataset, protocol, encoder and precision (where a protocol sets "
    "several sizes of an encoder side by side, on another size, named beside its parameters): the difference of the "
    "means over seeds with Welch's 95 % interval, and seconds an epoch, its energy where a GPU counted it, and peak "
    "memory of training relative to the softmax, from runs alone on the machine, of one version of the code, on one "
    "device; ~ where none could tell. Memory is what NVML counts, with all that the allocator keeps reserved; "
    "allocated is the peak of what it had given out. Better: the whole interval lies on the good side of zero. Worth "
    f"it: better, and training takes at most {FREE:g} times as long, or the gain is at least "
    f"{100 * GAIN_A_DOUBLING:g} % of the softmax's value for each doubling of the time. No gain shown: the interval "
    "holds zero. All of it is against the softmax alone: another head may give more for less."
)


@dataclass(frozen=True, slots=True)
class Worth:
    """One head against the softmax: ``change`` is its metric minus the softmax's, ratios are to the softmax.

    Runs made for the clock alone have costs and no change. ``timed`` are the runs behind the ratios, of both sides;
    ``sure`` is False where none could tell whether it was alone on the machine.
    """

    cell: Cell
    base: Cell
    metric: str
    change: Summary
    seconds: float | None
    joules: float | None = None
    memory: float | None = None
    allocated: float | None = None
    timed: tuple[Record, ...] = ()
    sure: bool = True

    @property
    def gain(self) -> float:
        """The part of the softmax's value by which the head is lower."""
        base = summarize(values(self.base, self.metric)).mean
        return -(self.change.mean or 0.0) / base if base else 0.0

    @property
    def verdict(self) -> str:
        """In words, by the rule of :data:`WORTH_CAPTION`."""
        if not self.change.n:
            return "costs alone"
        if self.change.low is None or self.change.high is None:
            return "undecided: one seed"
        if self.change.low > 0:
            return "worse"
        if self.change.high >= 0:
            return "no gain shown"
        if self.seconds is None:
            return "better; its cost is not measured"
        if self.seconds <= FREE:
            return "worth it: better at about the same cost"
        fair = self.gain >= GAIN_A_DOUBLING * math.log2(self.seconds)
        return "worth it" if fair else "better, but dear"


def worths(cells: Sequence[Cell], records: Sequence[Record], apart: Apart | None = None) -> list[Worth]:
    """Every head that has a softmax beside it, best first within a section; ``records`` may add costs.

    Quality comes from full runs, which may have shared a GPU; costs from any run of the same model and batch that did
    not, a shortened one included. ``apart`` as for :func:`suite.report.pairing.pairs`.
    """
    found = []
    timed = steps(records)
    cells = [cell for cell in cells if cell.key.of_heads]
    others = sorted({cell.head for cell in cells} - {BASE})
    for cell, base in _beside(cells, others, apart):
        metric = next((name for name in PRIMARY_METRICS if values(cell, name) and values(base, name)), None)
        if metric is None:
            continue
        both = cost_pair(timed.get(step(cell.records[0]), []), timed.get(step(base.records[0]), []))
        seconds = joules = memory = allocated = None
        if both:
            mine, theirs = both
            seconds = _over(mine.seconds_per_epoch, theirs.seconds_per_epoch)
            joules = _over(mine.joules_per_epoch, theirs.joules_per_epoch)
            if mine.peak_source == theirs.peak_source:
                memory = _over(mine.own_peak_mib, theirs.own_peak_mib)
            allocated = _over(mine.allocated_mib, theirs.allocated_mib)
        change = difference(values(cell, metric), values(base, metric)) if cell.key.of_quality else Summary(0)
        sure = both is None or (both[0].exclusive and both[1].exclusive)
        behind = () if both is None else (*both[0].records, *both[1].records)
        found.append(Worth(cell, base, metric, change, seconds, joules, memory, allocated, behind, sure))
    return sorted(found, key=lambda one: (one.cell.key, one.change.mean or 0.0, one.cell.method))


def _over(mine: float | None, theirs: float | None) -> float | None:
    return mine / theirs if mine and theirs else None


def _beside(cells: Sequence[Cell], heads: Sequence[str], apart: Apart | None) -> Iterator[tuple[Cell, Cell]]:
    """Every head with the softmax on its own encoder or, where there is none, on another size of it."""
    lone = {id(cell): cell for cell in cells}
    for cell, base in pairs(cells, heads, BASE, ("dataset", "encoder-label", "precision"), apart):
        del lone[id(cell)]
        yield cell, base
    rest = [cell for cell in cells if id(cell) in lone]
    yield from pairs(rest, heads, BASE, ("dataset", "encoder-name", "precision"), apart)


def steps(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    """Finished runs by what their training step consists of: data, model, batch and precision; smoke runs left out."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "finished" and record.scope != "smoke" and record.costs is not None:
            found[step(record)].append(record)
    return found


def step(record: Record) -> str:
    """Equal where a training step costs the same."""
    recipe = record.spec.get("recipe", {})
    parts = [record.spec.get(name) for name in ("dataset", "encoder", "head")]
    parts += [recipe.get(name) for name in ("batch_size", "micro_batch", "bptt", "random_length", "precision")]
    return canonical_json(parts)


def worth_markdown(found: Sequence[Worth], records: str | None = "records", most: int | None = None) -> str:
    """One table a section; empty where no head stands beside a softmax. ``most`` as for the leaderboard.

    Without ``records`` its links lead where the leaderboard of the same file says, and the runs that were timed, which
    it may leave out, are not named.
    """
    if not found:
        return ""
    parts = [formatting.escape(WORTH_CAPTION)]
    gridded = sum(one.metric == "kl" for one in found)
    if most is not None and gridded > most:
        parts.append(f"The synthetic experiment: {gridded:,} rows, in results/HEADS.md.")
        found = [one for one in found if one.metric != "kl"]
    for key in dict.fromkeys(one.cell.key for one in found):
        here = [one for one in found if one.cell.key == key]
        long = most is not None and len(here) > most
        table = f"{len(here):,} rows, in results/HEADS.md." if long else render_table(_columns(here, records), "pipe")
        parts += [f"### {formatting.escape(_title(key, here[0].metric))}", table]
    linked = [record for one in found for record in (*one.cell.records, *one.base.records, *one.timed)]
    return "\n\n".join([*parts, *(link_definitions(linked, records) if records else [])]) + "\n"


def _title(key: SectionKey, metric: str) -> str:
    return f"{' · '.join(key)} ({key.scored_by(metric)})"


def _columns(found: Sequence[Worth], records: str | None) -> list[Column]:
    def column(title: str, cells: Sequence[str], right: bool = True) -> Column:
        return Column(title, tuple(formatting.clean(cell) for cell in cells), right)

    metric = found[0].metric
    links = {"record": tuple(link_cell(one.cell.records) for one in found)}
    if records and any(one.timed for one in found):
        links["timed by"] = tuple(link_cell(one.timed) for one in found)
    columns = [
        column("head", [one.cell.method for one in found], right=False),
        column("apart", ["; ".join(one.cell.difference) or formatting.DASH for one in found], right=False),
        column("parameters", [_count(one.cell) for one in found]),
        column("softmax's", [_of_base(one) for one in found]),
        column("ours", [formatting.summary(_quality(one), metric) for one in found]),
        column("against softmax [95 %]", [with_interval(one.change, metric) for one in found]),
        column("time", [_times(one.seconds, one.sure) for one in found]),
        column("energy", [_times(one.joules, one.sure) for one in found]),
        column("memory", [_times(one.memory, one.sure) for one in found]),
        column("allocated", [_times(one.allocated, one.sure) for one in found]),
        column("verdict", [one.verdict for one in found], right=False),
    ]
    named = [Column(title, cells, markdown=cells) for title, cells in links.items()]
    return [entry for entry in columns if not entry.empty] + named


def _quality(one: Worth) -> Summary:
    return summarize(values(one.cell, one.metric)) if one.change.n else Summary(0)


def _count(cell: Cell) -> str:
    return formatting.DASH if cell.parameters is None else f"{cell.parameters:,}"


def _of_base(one: Worth) -> str:
    other = "" if one.base.encoder == one.cell.encoder else f" ({one.base.encoder})"
    return _count(one.base) + other


def _times(ratio: float | None, sure: bool) -> str:
    return formatting.DASH if ratio is None else f"{'' if sure else '~'}{formatting.cost(ratio)} x"
