"""One frozen cell of a task: what is run, and the key that names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Scope = Literal["full", "short", "smoke"]


# Made once: a report asks for it some hundred thousand times.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one text form of a JSON value: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


@dataclass(frozen=True)
class ComponentSpec:
    """A component by name, with every option resolved (defaults written in)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON form: ``{"name": ..., option: value, ...}``."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Labels:
    """How a cell is called in tables and filters; never part of its identity."""

    dataset: str
    encoder: str
    head: str

    @property
    def method(self) -> str:
        """``encoder/head``, the name under which a published number is looked up."""
        return f"{self.encoder}/{self.head}"


@dataclass(frozen=True)
class RunSpec:
    """One cell: dataset x encoder x head x recipe x seed, fully resolved.

    ``identity`` holds what decides the result and nothing else; ``run_key`` is its sha256. Title, paper, protocol and
    labels only present the result, so changing them keeps finished runs valid.
    """

    task: str
    version: int
    dataset: ComponentSpec
    encoder: ComponentSpec
    head: ComponentSpec
    recipe: Mapping[str, Any]
    stages: tuple[ComponentSpec, ...]
    seed: int
    scope: Scope
    labels: Labels
    title: str = ""
    paper: str | None = None
    protocol: str = ""
    # sha256 of the source of each user module the cell's components come from, by the name the task file gives it.
    plugins: Mapping[str, str] = field(default_factory=dict)
    # Where each plugin is loaded from on this machine: never part of identity.
    plugin_paths: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as plain JSON."""
        return {
            "task": self.task,
            "version": self.version,
            "dataset": self.dataset.as_dict(),
            "encoder": self.encoder.as_dict(),
            "head": self.head.as_dict(),
            "recipe": dict(self.recipe),
            "stages": [stage.as_dict() for stage in self.stages],
            "seed": self.seed,
            "scope": self.scope,
            "plugins": dict(self.plugins),
        }

    @cached_property
    def run_key(self) -> str:
        """sha256 of the canonical identity: the same key means the same experiment."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Short human name: ``task dataset encoder/head seed``."""
        return f"{self.task} {self.labels.dataset} {self.labels.method} seed {self.seed}"
