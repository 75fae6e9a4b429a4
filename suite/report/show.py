"""One record as a page, and one line that sets it beside the published number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suite.records.published import Published
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import costs, precision, section_keys
from suite.report.columns import budget
from suite.report.grouping import flatten
from suite.report.leaderboard import build
from suite.report.rerun import rerun_command
from suite.report.rows import Row, Section
from suite.report.table import deviation_text, unfinished_line
from suite.spec.task import Deviation

_COSTS = {
    "seconds_per_epoch": "seconds per epoch (median)",
    "joules_per_epoch": "energy of an epoch, J (median)",
    "tokens_per_second": "tokens per second",
    "allocator_peak_mib": "allocator peak, MiB",
    "allocator_reserved_mib": "allocator reserved, MiB",
    "energy_joules": "energy in all, J",
    "energy_seconds": "energy measured over, s",
}


def compare_lines(record: Record, published: Sequence[Published]) -> list[str]:
    """One line a published number of the same method, protocol and stage, judged by this run alone.

    A run that is not a finished full one is said to be that, and compared with nothing.
    """
    if record.status != "finished":
        return [unfinished_line(record)]
    if record.scope != "full":
        said = f"{record.name}: a {record.scope} run ({budget(record)}), not comparable with published numbers"
        return [formatting.clean(said)]
    board = build([record], published, datasets=[record.labels.dataset])
    mine = set(section_keys(record))
    return [
        _compare_line(section, row, row.published, row.delta)
        for section in board.sections
        for row in section.rows
        if section.key in mine and row.cell and row.published and row.delta is not None
    ]


def _compare_line(section: Section, row: Row, published: Published, delta: float) -> str:
    metric = section.metric
    theirs = formatting.published_value(published.values.get(f"{row.split}.{metric}"), metric)
    ours = formatting.summary((row.ours or {}).get(row.split), metric)
    return formatting.clean(
        f"{section.key.dataset} {row.method} {section.key.stage}: {row.split} {metric} {ours}; {theirs} published "
        f"({formatting.source(published)}); difference {formatting.signed(delta, metric)}; {row.verdict}"
    )


def render(
    record: Record,
    published: Sequence[Published] = (),
    rerun_note: str | None = None,
    deviations: Sequence[Deviation] = (),
) -> str:
    """Everything a record holds that a person reads: what was asked, what came out, what it cost, where it ran.

    ``rerun_note`` is said under the command that runs it again: that its task file has changed, for one.
    ``deviations`` are those from the published recipe that its task file names for it.
    """
    parts = [
        _block(
            record.name,
            {
                "run": record.run_key,
                "status": f"{record.status} ({record.scope})",
                "message": record.message,
                "task": f"{record.task.name} version {record.task.version}: {record.task.title}".rstrip(": "),
                "paper": record.task.paper,
                "protocol": record.task.protocol,
                "parameters": f"{record.model.parameters:,}" if record.model else None,
                "head parameters": f"{record.model.head_parameters:,}" if record.model else None,
                "precision": precision(record),
            },
        ),
        _block("Run it again", {"command": rerun_command(record), "note": rerun_note}),
        _block("Results", _metrics(record)),
        _listed("Deviations from the published recipe", map(deviation_text, deviations)),
        _block("Known of the data", {name: f"{value:g}" for name, value in record.facts.items()}),
        _block("Curve", _curve(record.curves)),
        _block("Costs", _costs(record)),
        _block("Environment", record.environment.model_dump() if record.environment else {}),
        _block("Provenance", record.provenance.model_dump()),
        _block("Spec", dict(flatten(record.spec))),
    ]
    lines = compare_lines(record, published) if published else []
    if lines:
        parts.insert(2, "\n".join(["Beside published numbers", *(f"  {line}" for line in lines)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(title: str, lines: Iterable[str]) -> str:
    shown = [f"  - {line}" for line in lines]
    return "\n".join([title, *shown]) if shown else ""


def _block(title: str, fields: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in fields.items() if value not in (None, "", {}, [])}
    if not shown:
        return ""
    width = max(len(name) for name in shown)
    lines = [f"  {formatting.clean(name):<{width}}  {_text(value)}" for name, value in shown.items()]
    return "\n".join([formatting.clean(title), *lines])


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return formatting.clean(", ".join(f"{name} {item}" for name, item in value.items()))
    return formatting.clean(str(value))


def _metrics(record: Record) -> dict[str, str]:
    return {
        f"{stage} {split}": ", ".join(
            f"{name} {formatting.metric(value, name)}" for name, value in sorted(values.items())
        )
        for stage, splits in record.metrics.items()
        for split, values in splits.items()
    }


def _curve(points: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """First, best and last evaluation; best by the first validation metric there is, lower being better."""
    if not points:
        return {}
    found = {"evaluations": str(len(points)), "first": _point(points[0])}
    watched = next((name for name in ("valid_ppl", "valid_bpc", "valid_kl", "valid_nll") if name in points[0]), None)
    if watched:
        best = min((point for point in points if watched in point), key=lambda point: point[watched])
        found[f"best {watched}"] = _point(best)
    return {**found, "last": _point(points[-1])}


def _point(point: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in point.items())


def _costs(record: Record) -> dict[str, str]:
    if record.costs is None:
        return {}
    found = {f"{phase}, s": formatting.cost(value) for phase, value in record.costs.seconds.items()}
    for name, title in _COSTS.items():
        value = getattr(record.costs, name)
        if value is not None:
            found[title] = formatting.cost(value)
    peak = costs([record])
    if peak.peak_mib is not None:
        found[f"peak MiB ({peak.peak_source})"] = formatting.cost(peak.peak_mib)
    alone = {True: "yes", False: "no", None: "unknown"}[record.costs.exclusive]
    found["alone on the machine"] = "no, packed with other runs" if record.costs.packed else alone
    if record.costs.throttled:
        found["slowed down by heat or power"] = "yes"
    return found
