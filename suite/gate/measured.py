"""What the gate measures of a cell: plain numbers, without the tensors they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Of one training step; ``time`` and ``memory`` are multiples of the yardstick's.

    ``operations`` and ``flops`` are counted (:mod:`suite.gate.counting`), and depend on the release of torch.
    """

    parameters: int
    head_parameters: int
    operations: int
    flops: int
    time: float
    memory: float


@dataclass(frozen=True)
class Measured:
    """One cell: its metrics by ``stage.split.metric``, a value a seed, and what a step of it costs.

    ``seeds`` are those of ``quality`` in order. ``failure`` says what ended a run that did not finish; there is then
    no quality to compare.
    """

    cell: str
    seeds: tuple[int, ...]
    quality: Mapping[str, Sequence[float]]
    cost: Cost
    failure: str | None = None
