"""A workspace with one plugin file, so that these tests do not depend on the suite's own components."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from suite.errors import InputError
from suite.spec.task import Task, load_task

PLUGIN = '''
"""Components that only the registry looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from suite import register
from suite.spec.types import Finite, PointwiseOption, PositiveFloat, PositiveInt, Probability

CURVE: PointwiseOption = {"name": "curve"}


@register("dataset", "toy")
class Toy:
    """A toy language.

    With a second paragraph.
    """

    def __init__(self, *, size: PositiveInt = 10, p: Probability = 0.5, unit: Literal["word", "char", 1] = "word"):
        self.size, self.p, self.unit = size, p, unit


class Base:
    def __init__(
        self,
        vocabulary: int,
        *,
        hidden: Sequence[PositiveInt] = (1150, 1150, 400),
        drop: float = 0,
        tied: bool = True,
        cap: PositiveFloat | None = None,
    ):
        self.vocabulary, self.hidden, self.drop, self.tied, self.cap = vocabulary, hidden, drop, tied, cap


@register("encoder", "rnn")
class Rnn(Base):
    """A recurrence."""


@register("head", "mix")
class Mix:
    """A mixture."""

    def __init__(self, *, experts: PositiveInt, pointwise: PointwiseOption = CURVE):
        self.experts, self.pointwise = experts, pointwise


@register("head", "flat")
class Flat:
    """No mixture."""


@register("pointwise", "curve")
class Curve:
    """A curve."""

    def __init__(self, *, knots: PositiveInt = 5, shift: Finite = -0.0, inner: PointwiseOption | None = None):
        self.knots, self.shift, self.inner = knots, shift, inner


@register("stage", "fit")
def fit(*, rounds: int = 1):
    """Fit the model."""
    return rounds
'''

TASK = """\
title: A task
version: 1
protocol: toy
plugins: [../plugins/mine.py]
dataset: toy
encoder: rnn
heads:
  - {name: mix, experts: 3}
  - flat
stages: [fit]
seeds: [1, 2]
"""


class Workspace:
    """Writes task files below a temporary working directory and reads them by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("plugins/mine.py", PLUGIN)

    def write(self, name: str, text: str | bytes) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def task(self, text: str = TASK, name: str = "tasks/x.yaml") -> Task:
        return load_task(self.write(name, text))

    def changed(self, **lines: str) -> str:
        """The good task with some top-level keys replaced or added; an empty value removes the key."""
        blocks: dict[str, str] = {}
        for line in TASK.splitlines(keepends=True):
            if line[0] == " ":
                blocks[next(reversed(blocks))] += line
            else:
                blocks[line.split(":")[0]] = line
        for key, value in lines.items():
            nested = "\n" in value
            blocks[key] = (
                f"{key}:{chr(10) if nested else ' '}{textwrap.dedent(value) if not nested else value}\n"
                if value
                else ""
            )
        return "".join(blocks.values())

    def errors(self, text: str | bytes, name: str = "tasks/x.yaml") -> list[str]:
        with pytest.raises(InputError) as caught:
            load_task(self.write(name, text))
        return str(caught.value).splitlines()
