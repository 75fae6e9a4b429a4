"""What runs share (dataset, encoder, head, recipe, environment), told once on the page and named by every row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from suite.records.record import Record
from suite.report.cells import flatten
from suite.spec.run_spec import canonical_json

# A page is no place for a list without end; the record has it all.
MOST_LINES = 200
KINDS = ("dataset", "encoder", "head", "recipe", "environment")


@dataclass(frozen=True, slots=True)
class Setting:
    """One block of settings: ``lines`` are dotted keys with their values; ``more`` of them were left out."""

    id: str
    kind: str
    title: str
    lines: tuple[tuple[str, str], ...]
    more: int


@dataclass
class Settings:
    """Every different block met so far, by kind and in the order of the page; the same content has one id."""

    found: dict[tuple[str, str], Setting] = field(default_factory=dict)

    def of(self, record: Record) -> tuple[Setting, ...]:
        """The blocks that describe a run, in the order of :data:`KINDS`; an environment only where one was recorded."""
        return tuple(self._add(kind, title, content) for kind, title, content in _contents(record))

    def by_kind(self) -> dict[str, list[Setting]]:
        """All blocks for the list at the end of the page."""
        groups: dict[str, list[Setting]] = {kind: [] for kind in KINDS}
        for block in self.found.values():
            groups[block.kind].append(block)
        return {kind: blocks for kind, blocks in groups.items() if blocks}

    def _add(self, kind: str, title: str, content: Mapping[str, Any]) -> Setting:
        key = kind, canonical_json(content)
        if key not in self.found:
            lines = tuple(flatten(content))
            place = 1 + sum(known == kind for known, _ in self.found)
            shown, more = lines[:MOST_LINES], max(0, len(lines) - MOST_LINES)
            self.found[key] = Setting(f"{kind}-{place}", kind, title, shown, more)
        return self.found[key]


def _contents(record: Record) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    labels, spec = record.labels, record.spec
    for kind, title in (("dataset", labels.dataset), ("encoder", labels.encoder), ("head", labels.head)):
        yield kind, title, dict(spec.get(kind) or {})
    recipe = {name: spec[name] for name in ("recipe", "stages", "plugins") if spec.get(name)}
    yield "recipe", record.task.name, recipe
    if record.environment is not None:
        yield "environment", record.environment.device, record.environment.model_dump()
