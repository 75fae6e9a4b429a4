"""What a stage of a run is given, and what it gives back.

A stage (train, rank ...) is a component like a head: it takes the run so far and returns measurements by split. The
runner walks the list and knows none of them by name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from suite.data.base import DistributionData, TextData
from suite.measurement.clock import PhaseClock
from suite.models.heads.pointwise import Pointwise
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Recipe
from suite.spec.run_spec import RunSpec

# split -> metric -> value
Measurements = dict[str, dict[str, float]]


class ProgressView(Protocol):
    """Where a stage reports how far it is; terminals and logs show it differently."""

    def update(self, line: str, *, final: bool = False) -> None:
        """Show ``line`` in place of the one before; ``final`` keeps it."""
        ...


@dataclass
class RunContext:
    """One run in progress.

    Attributes:
        spec: the cell.
        recipe: its recipe, validated.
        data: what the dataset gave.
        device: where the model lives.
        model: the model, as built when the context is made; after the train stage it holds the weights that are scored.
        folder: the run's own folder (checkpoints, event log).
        clock: seconds by phase, over all attempts.
        joules: what the GPU's counter of energy shows; not a number where there is none.
        emit: appends an event (type and fields) to the run's log.
        progress: where to report.
        stop: reason to stop at the next step, or None.
        save: writes a checkpoint with the stage's own state.
        checkpoint_seconds: how often a long stage should save.
        graphs: whether steps may be replayed from CUDA graphs; off, every kernel is launched from Python.
        curves: one entry an evaluation, in order.
        spectra: singular values by "stage split", pairs (index from 1, s / s_0).
        functions: the head's learned function by stage, rows (z, g(z), share of the logits seen at or below z, g(z) as
            built).
        extras: cost figures only a stage can know (seconds_per_epoch, tokens_per_second ...).
        pointwise_start: the head's output function as it was built, on the CPU.
    """

    spec: RunSpec
    recipe: Recipe
    data: TextData | DistributionData
    device: torch.device
    model: LanguageModel
    folder: Path
    clock: PhaseClock
    emit: Callable[..., None]
    progress: ProgressView
    stop: Callable[[], str | None]
    save: Callable[[dict[str, Any] | None], None]
    joules: Callable[[], float] = lambda: math.nan
    checkpoint_seconds: float = 30.0
    graphs: bool = True
    curves: list[dict[str, float]] = field(default_factory=list)
    spectra: dict[str, list[list[float]]] = field(default_factory=dict)
    functions: dict[str, list[list[float]]] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    pointwise_start: Pointwise = field(init=False)

    def __post_init__(self) -> None:
        """Keep the output function of the model, untrained as it is; off the GPU, whose memory is counted."""
        self.pointwise_start = copy.deepcopy(self.model.head.pointwise).cpu()

    @property
    def weights_path(self) -> Path:
        """The weights that later stages score: the best on validation so far."""
        return self.folder / "weights.pt"


class Stage(Protocol):
    """A step of a run. Constructed with its options, then run once (or resumed with the state it last saved).

    It runs in the recipe's evaluation arithmetic, unless an attribute ``trains`` says that it chooses its own.
    """

    name: str

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """Do the work and return what was measured.

        Args:
            context: the run so far.
            state: what this stage last passed to ``context.save``, or None at its beginning.

        Raises:
            Diverged: a loss is no longer finite.
            Interrupted: asked to stop; the last checkpoint is whole.
        """
        ...
