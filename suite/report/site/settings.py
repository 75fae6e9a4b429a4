"""What runs share (dataset, encoder, head, recipe, environment, deviations), told once and named by every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from suite.records.record import Record
from suite.report.grouping import flatten
from suite.spec.run_spec import canonical_json
from suite.spec.task import Deviation

# A page is no place for a list without end; the record has it all.
MOST_LINES = 200
_LETTERS = {"dataset": "d", "encoder": "e", "head": "h", "recipe": "r", "environment": "m", "deviation": "x"}
KINDS = tuple(_LETTERS)
# Blocks that others are told by; each new one is compared with all of them.
_MOST_BASES = 30


@dataclass(frozen=True, slots=True)
class Setting:
    """One block of settings: ``lines`` are dotted keys with their values; ``more`` of them were left out.

    With ``base`` the lines are those that differ from that block alone.
    """

    id: str
    kind: str
    title: str
    lines: tuple[tuple[str, str], ...]
    more: int
    base: str = ""


@dataclass
class Settings:
    """Every different block met so far, by kind and in the order of the page; the same content has one id."""

    found: dict[tuple[str, str], Setting] = field(default_factory=dict)
    _by_run: dict[str, tuple[Setting, ...]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _bases: dict[str, list[tuple[Setting, dict[str, str]]]] = field(default_factory=dict)

    def of(self, record: Record) -> tuple[Setting, ...]:
        """The blocks that describe a run, in the order of :data:`KINDS`; an environment only where one was recorded."""
        if record.run_key not in self._by_run:
            blocks = tuple(self._add(kind, title, content) for kind, title, content in _contents(record))
            self._by_run[record.run_key] = blocks
        return self._by_run[record.run_key]

    def deviation(self, deviation: Deviation) -> Setting:
        """The block of a deviation from a published recipe."""
        said = {name: getattr(deviation, name) for name in ("what", "why", "effect")}
        where = f" in {', '.join(deviation.stages)}" if deviation.stages else ""
        return self._add("deviation", f"applies to {deviation.touches}{where}", said)

    def by_kind(self) -> dict[str, list[Setting]]:
        """All blocks for the list at the end of the page."""
        groups: dict[str, list[Setting]] = {kind: [] for kind in KINDS}
        for block in self.found.values():
            groups[block.kind].append(block)
        return {kind: blocks for kind, blocks in groups.items() if blocks}

    def _add(self, kind: str, title: str, content: Mapping[str, Any]) -> Setting:
        key = kind, canonical_json(content)
        if key not in self.found:
            self._counts[kind] += 1
            self.found[key] = self._block(f"{_LETTERS[kind]}{self._counts[kind]}", kind, title, dict(flatten(content)))
        return self.found[key]

    def _block(self, place: str, kind: str, title: str, lines: dict[str, str]) -> Setting:
        """The whole of it, or what sets it apart from the block told in full that it is most like."""
        bases = self._bases.setdefault(kind, [])
        differences = [(_difference(lines, known), base) for base, known in bases]
        apart, base = min(differences, key=lambda pair: len(pair[0]), default=({}, None))
        if base is not None and 3 * len(apart) <= len(lines):
            return Setting(place, kind, title, *_bounded(apart), base.id)
        block = Setting(place, kind, title, *_bounded(lines))
        if len(bases) < _MOST_BASES:
            bases.append((block, lines))
        return block


def _difference(lines: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in lines.items() if base.get(name) != value}
    return found | {name: "absent" for name in base if name not in lines}


def _bounded(lines: Mapping[str, str]) -> tuple[tuple[tuple[str, str], ...], int]:
    return tuple(lines.items())[:MOST_LINES], max(0, len(lines) - MOST_LINES)


def _contents(record: Record) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    labels, spec = record.labels, record.spec
    for kind, title in (("dataset", labels.dataset), ("encoder", labels.encoder), ("head", labels.head)):
        yield kind, title, dict(spec.get(kind) or {})
    recipe = {name: spec[name] for name in ("recipe", "stages", "plugins") if spec.get(name)}
    yield "recipe", record.task.name, recipe
    if record.environment is not None:
        yield "environment", record.environment.device, record.environment.model_dump()
