"""A task file: its schema, and how it is read so that every problem in it is reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from suite.errors import InputError, Problem, raise_all
from suite.spec.components import names, positive_zero, resolve
from suite.spec.entries import Entry, read_entry
from suite.spec.explain import Nested, choices, dotted, shown, validate, with_article
from suite.spec.load import in_order, load_tree
from suite.spec.matrix import Cell, Matrix, build_cells
from suite.spec.plugins import PluginFile, Plugins, installed, locate
from suite.spec.recipe import Recipe, Strict
from suite.spec.run_spec import ComponentSpec
from suite.spec.types import NonNegativeInt, PositiveInt
from suite.spec.yaml_source import Node

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]


def _one_or_more(kind: str) -> Any:
    return Field(
        None, description=f"the {kind}, or a list of them: each a name, or a mapping with name, label and options"
    )


class Deviation(Strict):
    """Where the task leaves the published recipe: shown beside the numbers it touches, never part of a run's key."""

    what: Text = Field(description="what differs from the published recipe")
    why: Text = Field(description="the reason")
    effect: Text = Field(description="its measured or expected effect on the number")
    touches: Text = Field("*", description="a glob over encoder, head or encoder/head labels: the rows it touches")

    stages: list[Text] = Field([], description="the stages whose rows it touches; all when absent")

    def __hash__(self) -> int:
        return hash((self.what, self.why, self.effect, self.touches))

    def touches_row(self, encoder: str, head: str, stage: str | None = None) -> bool:
        """Whether the row of these labels is touched, in a stage or, for None, in any."""
        in_stage = stage is None or not self.stages or stage in self.stages
        return in_stage and any(fnmatchcase(name, self.touches) for name in (encoder, head, f"{encoder}/{head}"))


class TaskFile(Strict):
    """The keys of a task file. Components, recipe and matrix are read by their own schemas."""

    title: Text = Field(description="what the task is, for tables and pages")
    version: PositiveInt = Field(description="raise it when the task changes meaning: records of older versions retire")
    protocol: Text = Field(description="rows of one protocol are compared with each other on the leaderboard")
    paper: str | None = Field(None, description="the paper the task reproduces")
    description: str = Field("", description="a sentence or two for `suite list`")
    extends: str | None = Field(
        None, description="one parent file, relative to this one: mappings merge, lists replace"
    )
    abstract: bool = Field(False, description="a base for other files: neither listed nor run")
    smoke: bool = Field(False, description="a check that things run; its numbers never fill the leaderboard")
    plugins: list[str] = Field([], description="files (relative to this one) or modules that register components")
    dataset: Annotated[Any, Nested("dataset")] = _one_or_more("dataset")
    datasets: Annotated[Any, Nested("dataset")] = _one_or_more("dataset")
    encoder: Annotated[Any, Nested("encoder")] = _one_or_more("encoder")
    encoders: Annotated[Any, Nested("encoder")] = _one_or_more("encoder")
    head: Annotated[Any, Nested("head")] = _one_or_more("head")
    heads: Annotated[Any, Nested("head")] = _one_or_more("head")
    recipe: Any = Field({}, description="optimisation, regularisation, budget and evaluation")
    stages: Any = Field(
        ["train"], description="what is done, in order: each a name, or a mapping with name and options"
    )
    seeds: list[NonNegativeInt] = Field(description="one run for each seed and cell")
    matrix: Any = Field({}, description="cells to leave out (exclude) or add (include)")
    deviations: Any = Field(
        [],
        description="differences from the published recipe, shown beside the numbers they touch: a list, or a mapping "
        "from names of your own, so that a child replaces one by its name, drops one by null and keeps the others",
    )


@dataclass(frozen=True)
class Task:
    """A task file, checked: every component resolved, every cell named. ``path`` is as the user gave it."""

    name: str
    path: Path
    title: str
    version: int
    protocol: str
    paper: str | None
    description: str
    abstract: bool
    smoke: bool
    datasets: tuple[Entry, ...]
    encoders: tuple[Entry, ...]
    heads: tuple[Entry, ...]
    recipe: Mapping[str, Any]
    stages: tuple[ComponentSpec, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    plugins: Plugins
    deviations: tuple[Deviation, ...] = ()


def load_task(path: str | os.PathLike[str]) -> Task:
    """Read and check a task file with the files it extends.

    Raises:
        InputError: every problem found, sorted by line, each ``file:line:column: key: message``.
    """
    shown_path = Path(path)
    tree, problems = load_tree(shown_path)
    reader = _Reader(tree, shown_path)
    task = reader.read()
    # Where the YAML itself was refused, what stands there says nothing more.
    refused = {problem.where for problem in problems}
    problems += [problem for problem in reader.problems if problem.where not in refused]
    raise_all(in_order(problems, str(shown_path)))
    assert task is not None
    return task


class _Reader:
    def __init__(self, tree: Node, path: Path) -> None:
        self.tree = tree
        self.path = path
        self.problems: list[Problem] = []
        self.abstract = False
        self.plugins_known = True

    def _keep(self, result: tuple[T, list[Problem]]) -> T:
        self.problems += result[1]
        return result[0]

    def read(self) -> Task | None:
        header = self._header()
        self.abstract = header.abstract
        name = self.path.stem
        try:
            name.encode()
        except UnicodeEncodeError:
            self.problems.append(
                Problem("the file's name is not UTF-8; rename it", str(self.path).encode("ascii", "replace").decode())
            )
        plugins = self._plugins(header.plugins)
        datasets, encoders, heads = (self._entries(kind, plugins) for kind in ("dataset", "encoder", "head"))
        stages = self._stages(plugins)
        recipe_node = self.tree.value.get("recipe") or Node({}, self.tree.mark)
        recipe = self._keep(validate(Recipe, recipe_node, "recipe"))
        deviations = self._deviations(plugins)
        matrix_node = self.tree.value.get("matrix") or Node({}, self.tree.mark)
        matrix = self._keep(validate(Matrix, matrix_node, "matrix"))
        cells: tuple[Cell, ...] = ()
        if self.abstract:
            self.problems = [problem for problem in self.problems if not problem.message.startswith("missing; ")]
        elif not self.problems and recipe is not None and matrix is not None:
            cells = self._keep(
                build_cells(
                    {"dataset": datasets, "encoder": encoders, "head": heads},
                    header.seeds,
                    recipe_node,
                    matrix_node,
                    plugins,
                )
            )
        if self.problems or recipe is None:
            return None
        return Task(
            name,
            self.path,
            header.title,
            header.version,
            header.protocol,
            header.paper,
            header.description,
            header.abstract,
            header.smoke,
            datasets,
            encoders,
            heads,
            positive_zero(recipe.resolved()),
            stages,
            tuple(header.seeds),
            cells,
            plugins,
            deviations,
        )

    def _header(self) -> TaskFile:
        header, problems = validate(TaskFile, self.tree)
        self.problems += problems
        seeds = self.tree.value.get("seeds")
        if header is None:
            # What is right is read on, so that the problems of every part are reported together.
            wrong = {problem.path.split(".")[0].split("[")[0] for problem in problems}
            blank: dict[str, Any] = {"title": "", "version": 1, "protocol": "", "seeds": []}
            right = {key: item.plain() for key, item in self.tree.value.items() if key not in wrong}
            header = TaskFile.model_construct(**{**blank, **right})
            self.plugins_known = "plugins" not in wrong
            if "seeds" in wrong:
                return header
        if seeds is not None:
            if not header.seeds:
                self.problems.append(Problem("expected at least one seed", seeds.where, "seeds"))
            for index, seed in enumerate(header.seeds):
                if seed in header.seeds[:index]:
                    where = seeds.value[index].where
                    self.problems.append(Problem(f"{seed} is listed already", where, dotted("seeds", index)))
        return header

    def _deviations(self, plugins: Plugins) -> tuple[Deviation, ...]:
        node = self.tree.value.get("deviations") or Node([])
        if isinstance(node.value, list):
            items = [(dotted("deviations", index), item) for index, item in enumerate(node.value)]
        elif isinstance(node.value, dict):
            # What a child sets to null it takes away from its parent's.
            items = [(dotted("deviations", name), item) for name, item in node.value.items() if item.value is not None]
        else:
            text = f"expected a list of mappings, or a mapping of them by name, got {shown(node.plain())} (default [])"
            self.problems.append(Problem(text, node.where, "deviations"))
            return ()
        found = []
        known = names("stage", plugins)
        for path, item in items:
            deviation = self._keep(validate(Deviation, item, path))
            if deviation is None:
                continue
            found.append(deviation)
            for index, name in enumerate(deviation.stages):
                if plugins.complete and name not in known:
                    text = f"unknown stage {name!r}.{choices(name, known)}"
                    self.problems.append(
                        Problem(text, item.value["stages"].value[index].where, f"{path}.stages[{index}]")
                    )
        return tuple(found)

    def _plugins(self, listed: list[str]) -> Plugins:
        files: list[PluginFile] = []
        node = self.tree.value.get("plugins")
        before = len(self.problems)
        for index, name in enumerate(listed):
            item = node.value[index]
            # A path is relative to the file that lists it, which may be a parent of this one.
            try:
                files.append(locate(name, Path(item.mark.file).parent))
            except InputError as error:
                self.problems += [_at(problem, item.where, dotted("plugins", index)) for problem in error.problems]
        try:
            plugins = Plugins.of([*files, *installed()])
        except InputError as error:
            self.problems += error.problems
            plugins = Plugins()
        return replace(plugins, complete=self.plugins_known and len(self.problems) == before)

    def _entries(self, kind: str, plugins: Plugins) -> tuple[Entry, ...]:
        given = [key for key in (kind, f"{kind}s") if key in self.tree.value]
        if not given:
            text = f"missing; expected {with_article(kind)} or a list, each a name or a mapping with name and options"
            self.problems.append(Problem(text, self.tree.where, kind))
            return ()
        if len(given) > 1:
            text = f"give either {given[0]!r} or {given[1]!r}, not both"
            later = max(given, key=lambda key: self.tree.keys[key])
            self.problems.append(Problem(text, self.tree.where_key(later), later))
        node = self.tree.value[given[0]]
        single = not isinstance(node.value, list)
        items = [(given[0], node)] if single else [(dotted(given[0], i), item) for i, item in enumerate(node.value)]
        if not items:
            self.problems.append(Problem(f"expected at least one {kind}", node.where, given[0]))
        entries: dict[str, tuple[str, Entry]] = {}
        for path, item in items:
            entry = self._keep(read_entry(kind, item, plugins, path))
            if entry is None:
                continue
            where, same = item.where, next((at for at, other in entries.values() if other.key == entry.key), None)
            if entry.label in entries:
                hint = (
                    ""
                    if isinstance(item.value, dict) and "label" in item.value
                    else "; give this one a label of its own"
                )
                text = f"the label {entry.label!r} is used already by {entries[entry.label][0]}{hint}"
                self.problems.append(Problem(text, where, path))
            elif same is not None:
                self.problems.append(Problem(f"the same {kind} as {same}, under another label", where, path))
            else:
                entries[entry.label] = path, entry
        return tuple(entry for _, entry in entries.values())

    def _stages(self, plugins: Plugins) -> tuple[ComponentSpec, ...]:
        node = self.tree.value.get("stages") or Node([Node("train", self.tree.mark)], self.tree.mark)
        if not isinstance(node.value, list) or not node.value:
            text = f"expected a list of stages, got {shown(node.plain())} (default ['train'])"
            self.problems.append(Problem(text, node.where, "stages"))
            return ()
        found = [self._keep(resolve("stage", item, plugins, dotted("stages", i))) for i, item in enumerate(node.value)]
        return tuple(stage for stage in found if stage is not None)


def _at(problem: Problem, where: str, path: str) -> Problem:
    """A problem of a plugin: its own place when it has one, else the place that lists it."""
    return problem if ":" in problem.where else Problem(str(problem), where, path)
