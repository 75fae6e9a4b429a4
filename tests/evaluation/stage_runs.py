"""Stages run on small models outside of the runner: to the end, or stopped and taken up again from a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from suite.data.base import DistributionData, TextData
from suite.errors import Interrupted
from suite.measurement.clock import PhaseClock
from suite.models.language_model import LanguageModel
from suite.progress import Progress
from suite.spec.recipe import Recipe
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec
from suite.stages import Measurements, RunContext, Stage


def context_of(
    model: LanguageModel, data: TextData | DistributionData, folder: Path, recipe: Recipe | None = None
) -> RunContext:
    part = ComponentSpec("made-up")
    labels = Labels("made-up", "made-up", "made-up")
    spec = RunSpec("t", 1, part, part, part, {}, (), seed=1, scope="full", labels=labels)
    cpu = torch.device("cpu")
    folder.mkdir(parents=True, exist_ok=True)
    return RunContext(
        spec=spec,
        recipe=recipe or Recipe(bptt=7),
        data=data,
        device=cpu,
        model=model,
        folder=folder,
        clock=PhaseClock(cpu),
        emit=lambda *_, **__: None,
        progress=Progress(io.StringIO()),
        stop=lambda: None,
        save=lambda _: None,
    )


class Stops:
    """Asks to stop at the n-th time it is asked; a runner that asks again gets the same answer."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self) -> str | None:
        self._left -= 1
        return "enough" if self._left < 0 else None


def run_in_pieces(
    stage: Callable[[], Stage], context: Callable[[], RunContext], every: int
) -> tuple[Measurements, RunContext, int]:
    """Run a stage, stopping whenever it has asked ``every`` times, each time in a fresh context and from a file.

    Returns what it measured, its last context, and how often it was stopped.
    """
    saved: dict[str, Any] = {}
    for stopped in range(500):
        at = context()
        state = None
        if saved:
            held = torch.load(io.BytesIO(saved["file"]), weights_only=True)
            state, at.curves[:] = held["state"], held["curves"]

        def save(stage_state: dict[str, Any] | None, at: RunContext = at) -> None:
            buffer = io.BytesIO()
            torch.save({"state": stage_state, "curves": list(at.curves)}, buffer)
            saved["file"] = buffer.getvalue()

        at.stop, at.save = Stops(every), save
        try:
            return stage().run(at, state), at, stopped
        except Interrupted:
            continue
    raise AssertionError("never came to an end")
