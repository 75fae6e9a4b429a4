"""What the MLflow UI is asked to show: for each dataset its runs, the means by head, and curves beside costs.

The UI keeps the state of its runs page as JSON under a name that a link can ask for (an experiment tag). The form is
not documented; its fields were read from release 3.17, which the project pins. A UI that knows better ignores them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote

from suite.records.metrics import PRIMARY_METRICS, final_metrics
from suite.records.payload import about_record
from suite.records.record import Record

_EPOCH_SECONDS = "cost/seconds_per_epoch"
_PEAKS = ("cost/gpu_peak_mib", "cost/cpu_peak_mib")
_PARAMETERS = "model/parameters"
# Runs that differ in one of these are not averaged: a short run must not pass for a full one.
_APART = ("task", "version", "encoder", "precision", "scope")
_IMPLIED = ("version", "encoder", "precision")
_OWN_SECTION = "suite"
# The UI loads so many runs, groups those, and says nothing of the others but a button.
LOADED = 100
# Characters for the names of folded groups: the registry takes 20,000 for a state; a group not named is unfolded.
_FOLDED = 12_000
# Pixels.
_NAME_WIDTH = 180
_WIDE = {"params.`dataset`": 160, "params.`head`": 130, "params.`encoder`": 100, "params.`task`": 170}


@dataclass(frozen=True)
class View:
    """One page of the UI: its ``title`` in the list of links, and the ``state`` stored under ``key`` that it shows."""

    title: str
    key: str
    state: Mapping[str, Any]
    charts: bool = False

    def address(self, runs_page: str, *, stored: bool = True) -> str:
        """The link; where the state could not be stored, one that at least filters and sorts."""
        if stored:
            query = f"&viewStateShareKey={quote(self.key, safe='')}"
        else:
            order = quote(self.state["orderByKey"], safe="")
            query = f"&orderByKey={order}&orderByAsc={str(self.state['orderByAsc']).lower()}"
            query += f"&searchFilter={quote(self.state['searchFilter'], safe='')}"
        return runs_page + query + ("&compareRunsMode=CHART" if self.charts else "")


def overview() -> View:
    """Every run, the latest first: what is under way, and what failed."""
    columns = [_param(name) for name in ("dataset", "head", "encoder", "seed", "scope", "task")]
    columns += [_metric(name) for name in ("test_ppl", "valid_ppl", _EPOCH_SECONDS, *_PEAKS, _PARAMETERS)]
    return View("all runs, latest first", "runs", _table("", "attributes.start_time", False, columns))


def by_dataset(records: Iterable[Record]) -> dict[str, list[View]]:
    """For each dataset with a finished run: its runs, the means by head, and the charts."""
    finished = sorted((r for r in records if r.status == "finished"), key=lambda record: record.labels.dataset)
    return {
        name: _views(name, list(group)) for name, group in groupby(finished, key=lambda record: record.labels.dataset)
    }


def primary_metric(metrics: Iterable[str]) -> str | None:
    """The final metric that runs are ranked by, lower is better: of the test split where there is one."""
    names = set(metrics)
    wanted = [f"{split}_{name}" for name in PRIMARY_METRICS for split in ("test", "valid")]
    others = sorted(name for name in names if name.endswith(tuple(f"_{name}" for name in PRIMARY_METRICS)))
    return next((name for name in [*wanted, *others] if name in names and "/" not in name), None)


def best_run(records: Iterable[Record], dataset: str) -> Record | None:
    """The finished run of a dataset with the lowest primary metric; full runs before shortened ones."""
    scored = []
    for record in records:
        metrics = final_metrics(record)
        primary = primary_metric(metrics)
        if record.status == "finished" and record.labels.dataset == dataset and primary:
            scored.append((record.scope != "full", metrics[primary], record.run_key, record))
    return min(scored)[-1] if scored else None


def _views(dataset: str, records: Sequence[Record]) -> list[View]:
    key = _key(dataset)
    metrics = sorted({name for record in records for name in final_metrics(record)})
    primary = primary_metric(metrics) or "test_ppl"
    who = [_param(name) for name in ("head", "seed")]
    how = [_param(name) for name in ("encoder", "scope", "precision", "task", "cell")]
    columns = who + [_metric(name) for name in _shown_metrics(primary, metrics)] + how
    runs = _table(_condition("dataset", dataset), _metric(primary), True, columns)
    views = [View(f"runs by {primary}", f"{key}-runs", runs)]
    for task, part in _parts(records).items():
        views += _means(dataset, task, part, primary)
    return views


def _parts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """What a mean may be taken over: the dataset's runs, or each task's where they are more than the UI loads."""
    if len(records) <= LOADED or len({record.task.name for record in records}) == 1:
        return {"": list(records)}
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[record.task.name].append(record)
    return dict(sorted(parts.items()))


def _means(dataset: str, task: str, records: Sequence[Record], primary: str) -> list[View]:
    """The means by head and the charts; a title says where the UI has to be told to load what it left out."""
    condition = f"{_condition('dataset', dataset)} and attributes.status = 'FINISHED'"
    key, title = _key(dataset), ""
    if task:
        condition += f" and {_condition('task', task)}"
        key, title = f"{key}-{_key(task)}", f", {task}"
    metrics = sorted({name for record in records for name in final_metrics(record)})
    shown = [_metric(name) for name in _shown_metrics(primary, metrics)]
    # The best first, as the UI loads them.
    grouping = _grouping(sorted(records, key=lambda r: (final_metrics(r).get(primary, math.inf), r.run_key)))
    heads = _table(condition, _metric(primary), True, shown, _name_width(grouping)) | grouping
    whole = len(records) <= LOADED
    charts = {**heads, **_charts(primary, records, metrics), "runListHidden": whole}
    if not whole:
        # The mean of those that come first would be a mean of the best.
        title += f" (press Load more: {LOADED} of {len(records):,} runs)"
    return [
        View(f"means by head{title}", f"{key}-heads", heads),
        View(f"curves, and what they cost{title}", f"{key}-charts", charts, charts=True),
    ]


def _condition(param: str, value: str) -> str:
    mark = '"' if "'" in value else "'"
    return f"params.{param} = {mark}{value}{mark}"


def _shown_metrics(primary: str, metrics: Sequence[str]) -> list[str]:
    name = primary.rpartition("_")[2]
    wanted = [primary, f"valid_{name}", f"{primary}_above_floor"]
    wanted += [_EPOCH_SECONDS, *_PEAKS, _PARAMETERS]
    wanted += [metric for metric in metrics if re.search(r"-stage/.*_(rank|mode_match)$", metric)]
    return [metric for metric in dict.fromkeys(wanted) if metric in metrics]


def _table(
    condition: str, order: str, ascending: bool, columns: Sequence[str], name_width: int = _NAME_WIDTH
) -> dict[str, Any]:
    return {
        "searchFilter": condition,
        "orderByKey": order,
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(columns),
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": {"attributes.`Run Name`": name_width, **{column: _width(column) for column in columns}},
        "runsHiddenMode": "SHOW_ALL",
    }


def _width(column: str) -> int:
    """Pixels: for its title, and for what stands in it; the UI shows 16 digits of a number, of which six are enough."""
    return max(85, 7 * len(column.partition("`")[2]) + 20, _WIDE.get(column, 0))


def _name_width(grouping: Mapping[str, Any]) -> int:
    """Pixels for the longest name of a group, which repeats all that it was grouped by.

    Names too long to be stored are not there.
    """
    longest = max((len(name.replace("param.", "")) for name in grouping["groupsExpanded"]), default=0)
    return max(_NAME_WIDTH, min(560, 135 + 5 * longest))


def _grouping(records: Sequence[Record]) -> dict[str, Any]:
    """Means over seeds, the runs themselves folded away; by more than the head where the dataset's runs differ.

    What task and head tell already is left out of a group's name. A scope other than ``full`` is always named;
    ``cell`` tells apart what differs in the recipe alone.
    """
    params = [
        {**about_record(record).params, "version": str(record.task.version), "scope": record.scope}
        for record in records
    ]

    def groups(keys: Sequence[str]) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(tuple(given[key] or "null" for key in keys) for given in params))

    keys = ["head", *(key for key in _APART if len(groups([key])) > 1)]
    short = any(record.scope != "full" for record in records)
    for key in reversed(_IMPLIED):
        fewer = [other for other in keys if other != key]
        if len(groups(fewer)) == len(groups(keys)):
            keys = fewer
    if short and "scope" not in keys:
        keys.append("scope")
    if len(groups(keys)) < len(groups(["cell"])):
        keys.append("cell")
    names = [",".join(f"param.{key}.{value}" for key, value in zip(keys, group, strict=True)) for group in groups(keys)]
    by = [{"mode": "param", "groupByData": key} for key in keys]
    return {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": by},
        "groupsExpanded": dict.fromkeys(names[: _FOLDED // (10 + max(map(len, names)))], False),
        "useGroupedValuesInCharts": True,
    }


def _charts(primary: str, records: Sequence[Record], metrics: Sequence[str]) -> dict[str, Any]:
    curve = f"valid_{primary.rpartition('_')[2]}"
    cards: list[dict[str, Any]] = []
    # One point is no curve.
    if any(sum(curve in point for point in record.curves) > 1 for record in records):
        cards.append(_line(f"curve/{curve}"))
    cards.append(_card("BAR", metricKey=primary))
    costs = (_EPOCH_SECONDS, *_PEAKS, _PARAMETERS)
    cards += [_card("SCATTER", xaxis=_axis(cost), yaxis=_axis(primary)) for cost in costs if cost in metrics]
    for number, card in enumerate(cards):
        card["uuid"] = f"{_OWN_SECTION}-{number}"
    title = _floors(records) or "means over seeds"
    # The UI adds a chart for every other metric; folded away, and under the names it would give them itself.
    prefixes = {name.rpartition("/")[0] for name in metrics} | {"curve"}
    sections = [_section(_OWN_SECTION, title, True)]
    sections += [_section(f"auto-{prefix}", prefix or "Model metrics", False) for prefix in sorted(prefixes)]
    return {"compareRunCharts": cards, "compareRunSections": sections, "isAccordionReordered": True}


def _floors(records: Sequence[Record]) -> str:
    """The floors, when every run of the dataset has the same ones; short, for the UI cuts long titles."""
    found = []
    for split in ("valid", "test"):
        values = {record.facts.get(f"{split}_floor_ppl") for record in records}
        value = values.pop() if len(values) == 1 else None
        if value is not None:
            found.append(f"{split} {value:.2f}")
    return f"true floor: {', '.join(found)}" if found else ""


def _card(kind: str, **fields: Any) -> dict[str, Any]:
    common = {"type": kind, "metricSectionId": _OWN_SECTION, "deleted": False, "isGenerated": False}
    return {**common, "runsCountToCompare": 100, **fields}


def _line(metric: str) -> dict[str, Any]:
    return _card(
        "LINE",
        metricKey=metric,
        selectedMetricKeys=[metric],
        scaleType="log",
        xAxisScaleType="linear",
        xAxisKey="step",
        yAxisKey="metric",
        yAxisExpressions=[],
        selectedXAxisMetricKey="",
        lineSmoothness=0,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
        ignoreOutliers=False,
        range={},
    )


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _section(identifier: str, name: str, unfolded: bool) -> dict[str, Any]:
    own = identifier == _OWN_SECTION
    size = {"columns": 2, "cardHeight": 420} if own else {}
    return {"uuid": identifier, "name": name, "display": unfolded, "isReordered": own, "isGenerated": not own, **size}


def _param(name: str) -> str:
    return f"params.`{name}`"


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _key(dataset: str) -> str:
    """A tag-safe name; names that had to be changed keep apart by a few digits of their checksum."""
    safe = re.sub(r"[^A-Za-z0-9.-]", "-", dataset)[:60]
    return safe if safe == dataset else f"{safe}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"
