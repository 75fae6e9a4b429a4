"""Baselines of the gate, ``baselines/ci/*.yaml``: one file a task, read with places, written whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from ruamel.yaml import YAML

from suite.errors import InputError, Problem, raise_all
from suite.gate.measured import Measured
from suite.gate.tolerance import STEP_MEMORY, STEP_TIME, quality_interval, too_wide
from suite.records.files import atomic_write
from suite.spec.explain import validate
from suite.spec.recipe import Strict
from suite.spec.types import Finite, NonNegativeInt, PositiveFloat, PositiveInt
from suite.spec.yaml_source import Node, parse, read_text

_HEADER = """\
# What `suite check {name}` compares with. Written by `suite check {name} --update --reason TEXT`, never by hand.
"""


class Learned(Strict):
    """When, on what and why numbers were learned; ``changes``: the checkout differed from its commit."""

    commit: str | None
    changes: bool
    date: str
    reason: str
    torch: str
    machine: str

    @property
    def since(self) -> str:
        """``9d3051a6e (2026-11-24)``, as a message names it."""
        name = self.commit[:9] if self.commit else "an unknown commit"
        return f"{name}{' with changes' if self.changes else ''} ({self.date})"

    def counts_as(self, other: Learned) -> bool:
        """Whether both call the same operations for the same step."""
        return (self.torch, self.machine) == (other.torch, other.machine)


class Quality(Strict):
    """A metric of every seed, and the interval its mean may lie in."""

    metric: str = Field(min_length=1)
    low: Finite
    high: Finite
    values: list[Finite] = Field(min_length=2)


class Ratio(Strict):
    """A cost as a multiple of the yardstick's, and the most it may be."""

    ratio: PositiveFloat
    at_most: PositiveFloat


class Cell(Strict):
    """What one cell gave."""

    cell: str = Field(min_length=1)
    parameters: PositiveInt
    head_parameters: NonNegativeInt
    operations: PositiveInt
    flops: PositiveInt
    step_time: Ratio
    step_memory: Ratio
    quality: list[Quality]


class Baseline(Strict):
    """A task's numbers; ``learned`` has the latest learning first, and those before it."""

    learned: list[Learned] = Field(min_length=1)
    seeds: list[int] = Field(min_length=2)
    cells: list[Cell] = Field(min_length=1)

    def cell(self, name: str) -> Cell | None:
        """The cell of a name."""
        return next((cell for cell in self.cells if cell.cell == name), None)


def read(path: Path, seeds: Sequence[int] | None = None) -> Baseline:
    """The baseline in a file, which must be of these seeds where some are given.

    Raises:
        InputError: the file is absent or wrong; every problem with file, line and column.
    """
    name, place = path.stem, str(path)
    learn = f"`suite check {name} --update --reason TEXT`"
    if not path.exists():
        raise InputError(Problem(f"no such baseline; learn it with {learn}", place))
    node, problems = parse(read_text(path, place), place)
    if not isinstance(node.value, dict):
        raise InputError(*problems, Problem("expected a mapping with learned, seeds and cells", node.where))
    baseline, more = validate(Baseline, node)
    raise_all([*problems, *more])
    assert baseline is not None
    raise_all([*_inconsistent(baseline, node)])
    if seeds is not None and baseline.seeds != list(seeds):
        where = node.value["seeds"].where
        raise InputError(
            Problem(f"learned from {baseline.seeds}, and the task now has {list(seeds)}; {learn}", where, "seeds")
        )
    return baseline


def _inconsistent(baseline: Baseline, node: Node) -> list[Problem]:
    """What is well formed and cannot have been learned."""
    found = []
    names = [cell.cell for cell in baseline.cells]
    for index, cell in enumerate(baseline.cells):
        here = node.value["cells"].value[index].value
        if cell.cell in names[:index]:
            found.append(Problem(f"{cell.cell!r} stands here twice", here["cell"].where, f"cells[{index}].cell"))
        for place, quality in enumerate(cell.quality):
            path, where = f"cells[{index}].quality[{place}]", here["quality"].value[place].where
            if not quality.low < quality.high:
                found.append(Problem(f"an interval from {quality.low:g} to {quality.high:g} is empty", where, path))
            if len(quality.values) != len(baseline.seeds):
                text = f"{len(quality.values)} values for {len(baseline.seeds)} seeds"
                found.append(Problem(text, where, f"{path}.values"))
    return found


def learn(measured: Sequence[Measured], learned: Learned, earlier: Sequence[Learned]) -> Baseline:
    """The baseline that measurements make.

    Raises:
        InputError: a cell did not finish, has one seed only, or its seeds differ so much that a move of 3 % would pass.
    """
    problems: list[Problem] = []
    cells = []
    for one in measured:
        if one.failure is not None:
            problems.append(Problem(f"nothing to learn: {one.failure}", one.cell))
        elif len(one.seeds) < 2:
            problems.append(Problem("an interval needs two seeds; give the task more", one.cell))
        else:
            cells.append(_cell(one, problems))
    raise_all(problems)
    return Baseline(learned=[learned, *earlier], seeds=list(measured[0].seeds), cells=cells)


def _cell(one: Measured, problems: list[Problem]) -> Cell:
    qualities = []
    for metric, values in one.quality.items():
        interval = quality_interval(values)
        if too_wide(interval):
            problems.append(
                Problem(
                    f"{metric} may lie from {interval.low:.4g} to {interval.high:.4g}, so wide that a move of 3 % "
                    "would pass; train it longer, or give it more seeds",
                    one.cell,
                )
            )
        low, high = (float(f"{bound:.7g}") for bound in interval)
        qualities.append(Quality(metric=metric, low=low, high=high, values=[float(f"{v:.9g}") for v in values]))
    return Cell(
        cell=one.cell,
        parameters=one.cost.parameters,
        head_parameters=one.cost.head_parameters,
        operations=one.cost.operations,
        flops=one.cost.flops,
        step_time=_ratio(one.cost.time, STEP_TIME),
        step_memory=_ratio(one.cost.memory, STEP_MEMORY),
        quality=qualities,
    )


def _ratio(value: float, factor: float) -> Ratio:
    return Ratio(ratio=round(value, 4), at_most=round(factor * value, 4))


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline in one step; its folder is made when missing."""
    yaml = YAML()
    yaml.default_flow_style = None  # innermost lists and mappings on one line
    yaml.width = 10_000  # a value is never folded
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(baseline.model_dump(), text)
    atomic_write(path, _HEADER.format(name=path.stem) + text.getvalue())
