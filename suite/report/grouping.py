"""Records grouped into cells by their specs, and what tells specs apart."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from suite.records.fields import leaves
from suite.records.record import Record
from suite.report.cells import Cell, SectionKey, results, section_keys
from suite.spec.run_spec import canonical_json

_STAGES = "stages"
# What of a spec does not decide how a stage ends; of the stages those up to it do.
_NOT_OF_TRAINING = frozenset({"task", "version", "seed"})
# Keys by which cells of one name are told apart, at most.
_SHOWN_DIFFERENCES = 3


def group(
    finished: Iterable[Record], unfinished: Iterable[Record] = (), flat: dict[str, Mapping[str, str]] | None = None
) -> list[Cell]:
    """Cells of finished records; two experiments under one label are two cells and never averaged together.

    ``flat`` keeps specs taken apart, by run key, for whoever needs them again.
    """
    failed = defaultdict(list)
    for record in unfinished:
        failed[spec_hash(record)].append(record)
    named: dict[tuple[SectionKey, str], dict[str, Record]] = defaultdict(dict)
    for record in finished:
        for key in section_keys(record):
            named[key, record.labels.method][record.run_key] = record
    flat = {} if flat is None else flat
    cells = []
    for (key, method), namesakes in named.items():
        experiments = _experiments(namesakes.values(), key.stage)
        differing = _telling_keys([members[0] for members in experiments], flat)
        for members in experiments:
            records = tuple(sorted(members, key=lambda record: (record.seed, record.run_key)))
            stopped = [run for spec in dict.fromkeys(map(spec_hash, records)) for run in failed[spec]]
            cells.append(Cell(key, method, records, _difference(records[0], differing, flat), tuple(stopped)))
    return sorted(cells, key=lambda cell: (cell.key, cell.method, cell.difference, cell.records[0].run_key))


def _experiments(records: Iterable[Record], stage: str) -> list[list[Record]]:
    """Records apart by what the results of a stage depend on: all but their seed, their task and the stages after it.

    What is measured of the stage's model (ranks, modes) is told with its results. Runs that measure nothing go with
    those that do, where these all measure the same.
    """
    found: dict[tuple[str, int], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[origin(record, stage), record.task.version][_beside(record, stage)].append(record)
    for kinds in found.values():
        if len(kinds) == 2 and "" in kinds:
            nothing = kinds.pop("")
            next(iter(kinds.values())).extend(nothing)
    return [members for kinds in found.values() for members in kinds.values()]


def origin(record: Record, stage: str) -> str:
    """Equal for runs that reach the end of a stage alike, seeds aside, whatever their task and what they do next."""
    scored, stages = results(record), record.spec.get(_STAGES, [])
    parts: dict[str, Any] = {key: value for key, value in record.spec.items() if key not in _NOT_OF_TRAINING}
    parts[_STAGES] = [entry for entry in stages[: _end(record, stage)] if entry["name"] in scored]
    return canonical_json(parts)


def _beside(record: Record, stage: str) -> str:
    """What is measured of the stage's model and told with its results; empty where nothing is."""
    scored, stages = results(record), record.spec.get(_STAGES, [])
    found = list(takewhile(lambda entry: entry["name"] not in scored, stages[_end(record, stage) :]))
    return canonical_json(found) if found else ""


def _end(record: Record, stage: str) -> int:
    """The place behind a stage in the spec; that behind the last where it has no such stage."""
    names = [entry["name"] for entry in record.spec.get(_STAGES, [])]
    return names.index(stage) + 1 if stage in names else len(names)


def spec_hash(record: Record) -> str:
    """Equal for runs that differ in their seed alone."""
    spec = {key: value for key, value in record.spec.items() if key != "seed"}
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def differing_keys(namesakes: Sequence[Record], flat: dict[str, Mapping[str, str]] | None = None) -> list[str]:
    """The keys, seeds apart, in which the specs of one name differ; ``flat`` as for :func:`group`."""
    flat = {} if flat is None else flat
    if len(namesakes) < 2:
        return []
    specs = [flattened(record, flat) for record in namesakes]
    keys = sorted(set().union(*specs) - {"seed"})
    return [key for key in keys if len({other.get(key, "absent") for other in specs}) > 1]


def flattened(record: Record, known: dict[str, Mapping[str, str]]) -> Mapping[str, str]:
    """A record's spec by dotted keys, from ``known`` or put there."""
    if record.run_key not in known:
        known[record.run_key] = dict(flatten(record.spec))
    return known[record.run_key]


def _telling_keys(namesakes: Sequence[Record], flat: dict[str, Mapping[str, str]]) -> list[str]:
    """The keys that tell namesakes apart, beside their task; where they have other stages, these are named whole."""
    keys = [key for key in differing_keys(namesakes, flat) if key != "task"]
    if len({_stages(record) for record in namesakes}) < 2:
        return keys
    return [_STAGES, *(key for key in keys if not key.startswith(f"{_STAGES}["))]


def _stages(record: Record) -> str:
    return ", ".join(str(stage["name"]) for stage in record.spec.get(_STAGES, ()))


def _difference(record: Record, differing: Sequence[str], flat: dict[str, Mapping[str, str]]) -> tuple[str, ...]:
    own = {**flattened(record, flat), _STAGES: _stages(record)} if differing else {}
    said = [f"{key}={own.get(key, 'absent')}" for key in differing[:_SHOWN_DIFFERENCES]]
    more = len(differing) - len(said)
    return (*said, f"and {more} more") if more else tuple(said)


def flatten(value: Any) -> Iterable[tuple[str, str]]:
    """Dotted keys and their values as text, depth first: ``("recipe.optimizer.lr", "20.0")``."""
    for path, leaf in leaves(value).items():
        kind = type(leaf)
        # Thousands of specs are taken apart, and an encoder takes its time over the plainest values.
        if kind is str:
            yield path, leaf
        elif kind is int or (kind is float and math.isfinite(leaf)):
            yield path, repr(leaf)
        else:
            yield path, canonical_json(leaf)
