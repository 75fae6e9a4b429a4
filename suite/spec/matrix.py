"""The cells of a task: datasets x encoders x heads x seeds, less what is excluded, plus what is included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import Annotated, Any

from pydantic import Field

from suite.errors import Problem
from suite.spec.components import positive_zero
from suite.spec.entries import Entry, read_entry
from suite.spec.explain import Nested, dotted, validate
from suite.spec.load import merge
from suite.spec.plugins import Plugins
from suite.spec.recipe import Recipe, Strict
from suite.spec.run_spec import canonical_json
from suite.spec.types import NonNegativeInt
from suite.spec.yaml_source import Node

MAX_CELLS = 10_000
AXES = ("dataset", "encoder", "head")


class Exclude(Strict):
    """Cells to leave out: every one that matches all the keys given. Text is a label or a glob over labels."""

    dataset: str | None = None
    encoder: str | None = None
    head: str | None = None
    seed: NonNegativeInt | str | None = None


class Include(Strict):
    """Cells to add: labels of this task, or whole components; with seeds and recipe changes of their own."""

    dataset: Annotated[Any, Nested("dataset")]
    encoder: Annotated[Any, Nested("encoder")]
    head: Annotated[Any, Nested("head")]
    seeds: list[NonNegativeInt] | None = Field(None, description="the task's seeds when absent")
    recipe: dict[str, Any] = Field({}, description="laid over the task's recipe: mappings merge, the rest replaces")


class Matrix(Strict):
    """How the product of datasets, encoders, heads and seeds is cut and extended."""

    exclude: list[Exclude] = Field([])
    include: list[Include] = Field([])


@dataclass(frozen=True)
class Cell:
    """One run to be: three entries, a seed and the recipe in force (plain JSON, defaults written in)."""

    dataset: Entry
    encoder: Entry
    head: Entry
    seed: int
    recipe: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, str, str, str]:
        """Dataset, encoder, head and seed as text: what filters match."""
        return self.dataset.label, self.encoder.label, self.head.label, str(self.seed)


def matches(label: str, pattern: str) -> bool:
    """A label equals a pattern or fits it as a glob (case counts)."""
    return label == pattern or fnmatchcase(label, pattern)


def build_cells(
    entries: Mapping[str, tuple[Entry, ...]], seeds: Sequence[int], recipe: Node, matrix: Node, plugins: Plugins
) -> tuple[tuple[Cell, ...], list[Problem]]:
    """The cells in order (dataset, encoder, head, seed; then the included ones) and every problem of the matrix.

    ``recipe`` and ``matrix`` are trees that passed their schemas; ``entries`` maps dataset, encoder and head.
    """
    size = len(seeds)
    for axis in AXES:
        size *= len(entries[axis])
    if size > MAX_CELLS:
        return (), [_too_many(size, matrix)]
    builder = _Builder(entries, seeds, recipe, plugins)
    for index, node in enumerate(_items(matrix, "exclude")):
        builder.exclude(node, dotted("matrix.exclude", index))
    for index, node in enumerate(_items(matrix, "include")):
        builder.include(node, dotted("matrix.include", index))
        if len(builder.cells) > MAX_CELLS:
            return (), [_too_many(len(builder.cells), matrix)]
    if not builder.cells and not builder.problems:
        builder.problems.append(Problem("no cell is left: everything is excluded", matrix.where, "matrix"))
    return tuple(builder.cells), builder.problems


def _too_many(size: int, matrix: Node) -> Problem:
    return Problem(f"{size:,} cells are more than the limit of {MAX_CELLS:,}; split the task", matrix.where, "matrix")


def _items(matrix: Node, key: str) -> list[Node]:
    node = matrix.value.get(key)
    return list(node.value) if node is not None else []


class _Builder:
    def __init__(
        self, entries: Mapping[str, tuple[Entry, ...]], seeds: Sequence[int], recipe: Node, plugins: Plugins
    ) -> None:
        self.entries = {axis: {entry.label: entry for entry in entries[axis]} for axis in AXES}
        self.seeds = seeds
        self.recipe = recipe
        self.plugins = plugins
        self.problems: list[Problem] = []
        plain = _resolved(Recipe.model_validate(recipe.plain()))
        triples = product(entries["dataset"], entries["encoder"], entries["head"], seeds)
        self.cells = [Cell(dataset, encoder, head, seed, plain) for dataset, encoder, head, seed in triples]

    def exclude(self, node: Node, path: str) -> None:
        wanted = {key: str(item.value) for key, item in node.value.items() if item.value is not None}
        if not wanted:
            self.problems.append(Problem("expected at least one of dataset, encoder, head, seed", node.where, path))
            return
        keep: list[Cell] = []
        gone: list[Cell] = []
        for cell in self.cells:
            labels = dict(zip((*AXES, "seed"), cell.labels, strict=True))
            hit = all(matches(labels[key], pattern) for key, pattern in wanted.items())
            (gone if hit else keep).append(cell)
        if gone:
            self.cells = keep
            return
        known = {axis: list(self.entries[axis]) for axis in AXES} | {"seed": [str(seed) for seed in self.seeds]}
        text = "excludes nothing; " + "; ".join(f"{key} is one of: {', '.join(known[key])}" for key in wanted)
        self.problems.append(Problem(text, node.where, path))

    @cached_property
    def _present(self) -> tuple[set[tuple[str, str, str, str]], set[tuple[str, str, str, int, str]]]:
        """The cells in force when the first is included, by labels and by what they are."""
        return {cell.labels for cell in self.cells}, {_identity(cell) for cell in self.cells}

    def include(self, node: Node, path: str) -> None:
        before = len(self.problems)
        triple = [self._entry(axis, node.value[axis], dotted(path, axis)) for axis in AXES]
        recipe_node = node.value.get("recipe")
        over = merge(self.recipe, recipe_node) if recipe_node is not None else self.recipe
        recipe, problems = validate(Recipe, over, dotted(path, "recipe"))
        self.problems += problems
        seeds_node = node.value.get("seeds")
        seeds = self.seeds if seeds_node is None or seeds_node.value is None else seeds_node.plain()
        if not seeds:
            self.problems.append(Problem("expected at least one seed", node.where, dotted(path, "seeds")))
        if len(self.problems) > before or recipe is None:
            return
        dataset, encoder, head = (entry for entry in triple if entry is not None)
        labels, known = self._present
        for seed in seeds:
            cell = Cell(dataset, encoder, head, seed, _resolved(recipe))
            name = f"{dataset.label} {encoder.label}/{head.label} seed {seed}"
            if cell.labels in labels:
                text = f"the cell {name} is there already; exclude it, or give a component with a label of its own"
                self.problems.append(Problem(text, node.where, path))
            elif _identity(cell) in known:
                self.problems.append(Problem(f"the cell {name} repeats another under other labels", node.where, path))
            else:
                labels.add(cell.labels)
                known.add(_identity(cell))
                self.cells.append(cell)

    def _entry(self, kind: str, node: Node, path: str) -> Entry | None:
        known = self.entries[kind]
        if isinstance(node.value, str):
            if node.value not in known:
                text = f"no {kind} of this task has the label {node.value!r}; labels: {', '.join(known)}"
                self.problems.append(Problem(text, node.where, path))
            return known.get(node.value)
        entry, problems = read_entry(kind, node, self.plugins, path)
        self.problems += problems
        if entry is None:
            return None
        if known.setdefault(entry.label, entry).key != entry.key:
            text = f"the label {entry.label!r} is used already for another {kind}; give this one a label of its own"
            self.problems.append(Problem(text, node.where, path))
        return entry


def _identity(cell: Cell) -> tuple[str, str, str, int, str]:
    return cell.dataset.key, cell.encoder.key, cell.head.key, cell.seed, canonical_json(cell.recipe)


def _resolved(recipe: Recipe) -> Mapping[str, Any]:
    plain: Mapping[str, Any] = positive_zero(recipe.resolved())
    return plain
