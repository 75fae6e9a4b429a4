"""What a recorded spec must look like for everything that reads one; a stranger's may be any JSON."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suite.errors import Problem
from suite.records.record import Record

_MOST = 10
_LONGEST_PATH = 200

Epochs = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Shape(BaseModel):
    # What is not named here is shown and compared, and never computed with.
    model_config = ConfigDict(extra="ignore", strict=True)


class _Component(_Shape):
    name: str


class _Budget(_Shape):
    epochs: Epochs
    steps: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None


class _Recipe(_Shape):
    budget: _Budget
    precision: dict[str, str] = {}
    averaging: dict[str, Any] | None = None
    track_averages: list[Any] = []


class _Spec(_Shape):
    task: str
    version: int
    dataset: _Component
    encoder: _Component
    head: _Component
    recipe: _Recipe
    stages: Annotated[list[_Component], Field(min_length=1)]
    seed: int
    scope: str


def problems_of_spec(record: Record, where: str) -> list[Problem]:
    """What is wrong with the spec of a record, ten things at most.

    Its components have names, its recipe a budget; task, version, seed and scope are those that the record states
    outside of its spec. ``where`` names the record's file.
    """
    try:
        spec = _Spec.model_validate(record.spec)
    except ValidationError as error:
        return explained(error, where, "spec")
    stated = {"task": record.task.name, "version": record.task.version, "seed": record.seed, "scope": record.scope}
    return [
        Problem(f"is not the record's own {name}: the file was altered after its run; restore it or remove it", where,
                f"spec.{name}")
        for name, value in stated.items()
        if getattr(spec, name) != value
    ]  # fmt: skip


def explained(error: ValidationError, where: str, under: str = "") -> list[Problem]:
    """Pydantic's findings as problems, ten at most; a path is cut where a stranger's key makes it long."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    found = []
    for detail in details[:_MOST]:
        path = ".".join(part for part in (under, *map(str, detail["loc"])) if part)
        found.append(Problem(first_words(detail), where, path[:_LONGEST_PATH]))
    if len(details) > _MOST:
        found.append(Problem(f"and {len(details) - _MOST:,} more", where))
    return found


def first_words(detail: Any) -> str:
    """What one of pydantic's error details says."""
    known = {"missing": "required field is missing", "extra_forbidden": "unknown field"}
    text: str = known.get(detail["type"]) or detail["msg"]
    return text[:1].lower() + text[1:]
