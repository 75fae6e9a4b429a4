"""Who can reproduce what, from which commit: the runs behind the tables, by version of the code and machine."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from suite.records.record import Record
from suite.report import formatting
from suite.report.columns import Column
from suite.report.rerun import rerun_epochs
from suite.report.sides import ranges
from suite.report.table import render_table

CAPTION = (
    "Every run behind the tables, by the commit of the code it ran at and the machine it ran on. Check the commit out, "
    "install what it locks (.ci/requirements/suite.lock; requirements/suite.lock or constraints.txt in older commits), "
    "and the command gives the number again, on any machine where the device is a CPU and on such a GPU otherwise, to "
    "within what seeds and arithmetic leave. With changes: the code had been edited since the commit, and the edits "
    "are not recorded. "
    "`suite show RUN` prints the command of a single run, `suite export RUN --out FILE.zip` hands it on, and "
    "`suite import FILE.zip` verifies and adds it."
)
_UNKNOWN = "commit not recorded"
_WITHOUT_COMMIT = "Which code gave these numbers is not known; the commands run the same specs with the code at hand."
# In which order axes are joined: runs that differ in their seed alone belong together first.
_AXES = ("seeds", "heads", "encoders", "datasets")


class Origin(NamedTuple):
    """A version of the code on a machine."""

    commit: str
    state: str
    machine: str


@dataclass(frozen=True, slots=True)
class Block:
    """Runs of one task that one command runs again: every combination of its axes, and nothing besides."""

    task: str
    status: str
    scope: str
    epochs: int | None
    datasets: frozenset[str]
    encoders: frozenset[str]
    heads: frozenset[str]
    seeds: frozenset[int]

    @property
    def runs(self) -> int:
        """How many."""
        return len(self.datasets) * len(self.encoders) * len(self.heads) * len(self.seeds)

    @property
    def command(self) -> str:
        """What runs them again, past the records that are there."""
        words = ["suite", "run", self.task]
        for axis, labels in (("dataset", self.datasets), ("encoder", self.encoders), ("head", self.heads)):
            for label in sorted(labels):
                words += ["--only", f"{axis}={label}"]
        for seed in sorted(self.seeds):
            words += ["--seed", str(seed)]
        words += [] if self.epochs is None else ["--max-epochs", str(self.epochs)]
        return formatting.clean(shlex.join([*words, *(["--rerun"] if self.status == "finished" else [])]))


def reproduce_markdown(records: Sequence[Record]) -> str:
    """The page: a section for every origin, the latest first; empty without records."""
    origins: dict[Origin, list[Record]] = defaultdict(list)
    for record in records:
        origins[_origin(record)].append(record)
    ordered = sorted(origins, key=lambda origin: (_latest(origins[origin]), origin), reverse=True)
    parts = [formatting.escape(CAPTION, code=True)] if origins else []
    for origin in ordered:
        parts += _section(origin, origins[origin])
    return "\n\n".join(parts)


def blocks(records: Iterable[Record]) -> list[Block]:
    """The fewest blocks that joining one axis after the other gives; together they are the records, each once."""
    single = {
        Block(
            record.task.name,
            record.status,
            record.scope,
            rerun_epochs(record),
            frozenset([record.labels.dataset]),
            frozenset([record.labels.encoder]),
            frozenset([record.labels.head]),
            frozenset([record.seed]),
        )
        for record in records
    }
    for axis in _AXES:
        joined: dict[Block, set[Any]] = defaultdict(set)
        for block in single:
            joined[_with(block, axis, ())].update(getattr(block, axis))
        single = {_with(block, axis, values) for block, values in joined.items()}
    return sorted(single, key=lambda block: (block.task, block.scope, block.status, block.command))


def _with(block: Block, axis: str, labels: Iterable[Any]) -> Block:
    changes: dict[str, Any] = {axis: frozenset(labels)}
    return replace(block, **changes)


def _section(origin: Origin, records: Sequence[Record]) -> list[str]:
    found = blocks(records)
    days = sorted({record.provenance.ended[:10] for record in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = sorted({record.provenance.suite_version for record in records})
    title = f"{origin.commit[:12]} ({origin.state})" if origin.commit else _UNKNOWN
    about = f"{len(records):,} run{'s' * (len(records) != 1)} on {origin.machine}; suite {', '.join(versions)}; {when}."
    about += "" if origin.commit else f" {_WITHOUT_COMMIT}"
    commands = [f"git checkout {origin.commit}"] if origin.commit else []
    commands += [block.command for block in found]
    return [
        f"### {formatting.escape(formatting.clean(title))}",
        formatting.escape(formatting.clean(about)),
        render_table(_columns(found), "pipe"),
        "```\n" + "\n".join(commands) + "\n```",
    ]


def _columns(found: Sequence[Block]) -> list[Column]:
    def column(title: str, cells: Iterable[str], right: bool = False) -> Column:
        return Column(title, tuple(map(formatting.clean, cells)), right)

    return [
        column("task", (block.task for block in found)),
        column("dataset", (", ".join(sorted(block.datasets)) for block in found)),
        column("encoder", (", ".join(sorted(block.encoders)) for block in found)),
        column("heads", (", ".join(sorted(block.heads)) for block in found)),
        column("seeds", (ranges(block.seeds) for block in found), right=True),
        column("runs", (f"{block.runs:,}" for block in found), right=True),
        column("scope", (block.scope for block in found)),
        column("status", (block.status for block in found)),
    ]


def _origin(record: Record) -> Origin:
    origin = record.provenance
    state = {True: "with changes", False: "clean", None: "changes unknown"}[origin.dirty]
    return Origin(origin.commit or "", state, _machine(record))


def _machine(record: Record) -> str:
    """Device, cores and what decides its arithmetic; the records hold no host name."""
    where = record.environment
    if where is None:
        return "a machine that was not recorded"
    torch = where.versions.get("torch", "of unknown version")
    if where.device_kind == "cpu":
        plural = "s" * (where.threads != 1)
        return f"{where.device} (CPU, {where.threads} thread{plural}), Python {where.python}, torch {torch}"
    cuda = f", CUDA {where.cuda}" if where.cuda else ""
    driver = f", driver {where.driver}" if where.driver else ""
    return f"{where.device} (GPU), Python {where.python}, torch {torch}{cuda}{driver}"


def _latest(records: Iterable[Record]) -> str:
    return max(record.provenance.ended for record in records)
