"""When averaging should start: the running averages that one run kept beside its own, scored on test."""

from __future__ import annotations

from collections.abc import Sequence

from suite.records.metrics import PRIMARY_METRICS
from suite.records.published import Published
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import Cell, SectionKey
from suite.report.columns import Column, budget, link_cell
from suite.report.compare import summarize
from suite.report.table import link_definitions, render_table

OWN = "the recipe's own start"
NON_MONOTONE = "the non-monotone trigger"
AVERAGING_CAPTION = (
    "One run keeps several running averages of its weights, each begun at another epoch (or by the non-monotone "
    "trigger), and none of them changes the run: what they differ by on test is the start of averaging alone. Mean ± "
    "standard deviation (number of seeds); raw is the last iterate, not averaged; lowest is of the starts that every "
    "seed reached. Published: what sources print of runs whose own average began there; where a recipe scales the "
    "learning rate otherwise once it averages, the iterates of such a run part from ours."
)


def averaging_starts(cell: Cell, metric: str) -> dict[str, dict[int, float]]:
    """Where averaging began, and the test metric by seed: the run's own start, then the tracked ones in order.

    ``epoch 62`` for ``ppl@62``, ``the non-monotone trigger`` for ``ppl@nt``.
    """
    found: dict[str, dict[int, float]] = {}
    for record in cell.records:
        scores = record.metrics.get(cell.key.stage, {}).get("test", {})
        for name in sorted(scores, key=lambda name: (len(name), name)):
            if name == metric:
                found.setdefault(OWN, {})[record.seed] = scores[name]
            elif name.startswith(f"{metric}@"):
                start = name.removeprefix(f"{metric}@")
                title = NON_MONOTONE if start == "nt" else f"epoch {start}"
                found.setdefault(title, {})[record.seed] = scores[name]
    return found


def start_pair(cell: Cell, metric: str) -> tuple[str, str, list[float]] | None:
    """What moving the start of averaging does: two starts, and the test metric of the second minus that of the first.

    They are the earliest and the latest epoch that the task file fixes, or the non-monotone trigger and the one epoch
    that it does. Not the best and the worst: which those are is known only afterwards, and luck has its part in it.
    The differences are by seed, of those that have both, since one run carries all its averages.
    """
    own = cell.records[0].spec.get("recipe", {}).get("averaging") or {}
    found = averaging_starts(cell, metric)
    if OWN in found and str(own.get("epoch")).isdigit():
        found[f"epoch {own['epoch']}"] = found.pop(OWN)
    fixed = sorted((name for name in found if name.startswith("epoch ")), key=_epoch)
    if not fixed or (len(fixed) == 1 and NON_MONOTONE not in found):
        return None
    first, last = fixed[0] if len(fixed) > 1 else NON_MONOTONE, fixed[-1]
    shared = sorted(found[first].keys() & found[last].keys())
    return (first, last, [found[last][seed] - found[first][seed] for seed in shared]) if shared else None


def raw_values(cell: Cell, metric: str) -> dict[int, float]:
    """The metric of the last iterate on test, by seed."""
    scores = {record.seed: record.metrics.get(cell.key.stage, {}).get("test", {}) for record in cell.records}
    return {seed: values[f"{metric}_raw"] for seed, values in scores.items() if f"{metric}_raw" in values}


def averaging_markdown(cells: Sequence[Cell], records: str = "records", published: Sequence[Published] = ()) -> str:
    """One table a dataset, protocol and stage, a row a cell; empty where no run kept several averages."""
    parts: list[str] = []
    linked: list[Record] = []
    for key in dict.fromkeys(cell.key for cell in cells):
        for metric in PRIMARY_METRICS:
            here = [cell for cell in cells if cell.key == key and len(averaging_starts(cell, metric)) > 1]
            if not here:
                continue
            title = formatting.metric_title(metric)
            parts += [
                f"### {formatting.escape(' · '.join(key))} ({title}, test)",
                render_table(_columns(here, metric, published), "pipe"),
            ]
            linked += [record for cell in here for record in cell.records]
    if not parts:
        return ""
    return "\n\n".join([formatting.escape(AVERAGING_CAPTION), *parts, *link_definitions(linked, records)]) + "\n"


def _columns(cells: Sequence[Cell], metric: str, published: Sequence[Published]) -> list[Column]:
    tables = [averaging_starts(cell, metric) for cell in cells]
    names = list(dict.fromkeys(name for table in tables for name in table))
    # Epochs by number, after what has none.
    names.sort(key=lambda name: _epoch(name) if name.startswith("epoch ") else -1)
    found = [
        Column("method", tuple(formatting.clean(cell.method) for cell in cells)),
        Column("budget", tuple(budget(cell.records[0]) for cell in cells)),
        Column("raw", tuple(_shown(raw_values(cell, metric), metric) for cell in cells), right=True),
    ]
    found += [
        Column(name, tuple(_shown(table.get(name, {}), metric) for table in tables), right=True) for name in names
    ]
    for name in names:
        printed = tuple(
            _printed(cell, metric, name, published) if name in t else "" for cell, t in zip(cells, tables, strict=True)
        )
        found.append(Column(f"published, {name}", tuple(formatting.clean(text or formatting.DASH) for text in printed)))
    found.append(Column("lowest", tuple(_lowest(table, metric) for table in tables)))
    links = tuple(link_cell(cell.records) for cell in cells)
    found.append(Column("record", links, markdown=links))
    return [column for column in found if not column.empty]


def _printed(cell: Cell, metric: str, start: str, published: Sequence[Published]) -> str:
    """What sources print on test of the cell's model, averaged from a start; its protocol says which."""
    protocol = "nt-asgd" if start == NON_MONOTONE else f"et-asgd-{start.removeprefix('epoch ')}"
    key, name = cell.key._replace(protocol=protocol), f"test.{metric}"
    return "; ".join(
        f"{formatting.published_value(number.values[name], metric)} {formatting.source(number)}"
        for number in published
        if SectionKey(number.dataset, number.protocol, number.stage) == key
        and name in number.values
        and cell.answers(number)
    )


def _shown(by_seed: dict[int, float], metric: str) -> str:
    return formatting.summary(summarize(list(by_seed.values())), metric)


def _lowest(table: dict[str, dict[int, float]], metric: str) -> str:
    """The starts that share the lowest mean, as far as it is shown, of those that as many seeds have as any."""
    most = max(len(by_seed) for by_seed in table.values())
    summaries = {name: summarize(list(by_seed.values())) for name, by_seed in table.items() if len(by_seed) == most}
    means = {name: found.mean for name, found in summaries.items() if found.mean is not None}
    least = formatting.metric(min(means.values()), metric)
    return ", ".join(name for name, mean in means.items() if formatting.metric(mean, metric) == least)


def _epoch(start: str) -> int:
    return int(start.removeprefix("epoch "))
