"""A task of the gate, measured: every cell trained with every seed, and one step of it counted and timed."""

from __future__ import annotations

import io
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from suite.attempt import Attempt, RunOptions
from suite.data.base import DataAccess
from suite.gate.baseline import Learned
from suite.gate.counting import count
from suite.gate.measured import Cost, Measured
from suite.gate.pairs import median_ratio
from suite.gate.yardstick import Sizes, yardstick
from suite.measurement.environment import revision
from suite.models.language_model import LanguageModel
from suite.progress import Progress
from suite.records.record import Record
from suite.records.store import Store
from suite.runner import Runner
from suite.spec import components
from suite.spec.run_spec import RunSpec
from suite.stages import Measurements
from suite.training.loop import Trainer
from suite.training.profiling import next_step, of_one_length

METRIC = "ppl"
# A busy moment passes and a regression stays: a step counts as slower only if every round says so.
ROUNDS = 3


def here(reason: str) -> Learned:
    """What is measured now, and on what."""
    code = revision()
    return Learned(
        commit=code.commit,
        changes=bool(code.dirty),
        date=datetime.now(UTC).date().isoformat(),
        reason=reason,
        torch=torch.__version__.partition("+")[0],
        machine=f"{platform.system()} {platform.machine()}",
    )


class Bench:
    """Measures cells on the CPU with one thread; runs leave nothing behind but what is in ``scratch``.

    Args:
        scratch: an empty folder.
        progress: where to say which cell is at hand.
    """

    def __init__(self, scratch: Path, progress: Progress) -> None:
        self._progress = progress
        # Two threads of a small step wait for each other, and sums depend on how many there are.
        torch.set_num_threads(1)
        self._options = RunOptions(
            store=Store(scratch),
            device=torch.device("cpu"),
            access=DataAccess(data_dir=None, offline=True),
            progress=Progress(io.StringIO()),
        )
        self._runner = Runner(self._options)

    def measure(self, specs: Iterable[RunSpec], slowest: Mapping[str, float]) -> list[Measured]:
        """Measure the cells of a task.

        Args:
            specs: its runs; those that differ in the seed alone are one cell.
            slowest: by cell, the step time (a multiple of the yardstick's) below which no further round is needed.
        """
        cells: dict[str, list[RunSpec]] = {}
        for spec in specs:
            cells.setdefault(f"{spec.labels.dataset} {spec.labels.method}", []).append(spec)
        return [self._cell(name, runs, slowest.get(name)) for name, runs in cells.items()]

    def _cell(self, name: str, specs: Sequence[RunSpec], slowest: float | None) -> Measured:
        self._progress.update(f"{specs[0].task} {name}: a step")
        cost = self._cost(specs[0], slowest)
        records = []
        for spec in specs:
            self._progress.update(f"{spec.task} {name}: seed {spec.seed}")
            records.append(self._run(spec))
        ended = [r for r in records if r.status != "finished"]
        return Measured(
            cell=name,
            seeds=tuple(spec.seed for spec in specs),
            quality={} if ended else _by_metric([record.metrics for record in records]),
            cost=cost,
            failure=f"seed {ended[0].seed} {ended[0].status}: {ended[0].message}" if ended else None,
        )

    def _run(self, spec: RunSpec) -> Record:
        self._runner.run_all([spec])
        record = self._options.store.get(spec.run_key)
        assert record is not None, "a run leaves a record, however it ends"
        return record

    def _cost(self, spec: RunSpec, slowest: float | None) -> Cost:
        with components.using(components.Plugins.from_paths(spec.plugin_paths, spec.plugins)):
            attempt = Attempt(spec, self._options, self._runner.load(spec))
            context = replace(of_one_length(attempt.prepare()), graphs=False)
            model, recipe = context.model, context.recipe
            trainer = Trainer(context)
            trainer.begin()
            reference = yardstick(_sizes(model, recipe.bptt, recipe.micro_batch or recipe.batch_size))

            def step() -> None:
                next_step(trainer)

            ours, theirs = count(step), count(reference)
            times: list[float] = []
            while len(times) < ROUNDS and (slowest is None or not times or statistics.median(times) > slowest):
                times.append(median_ratio(step, reference))
        return Cost(
            parameters=model.parameter_count(),
            head_parameters=model.head_parameter_count(),
            operations=ours.operations,
            flops=ours.flops,
            time=statistics.median(times),
            memory=ours.peak_bytes / theirs.peak_bytes,
        )


def _sizes(model: LanguageModel, length: int, batch: int) -> Sizes:
    head = model.head
    return Sizes(head.weight.shape[0], model.encoder.context_size, head.experts, head.dimension, length, batch)


def _by_metric(metrics: Sequence[Mapping[str, Measurements]]) -> dict[str, list[float]]:
    """``stage.split.ppl`` to a value a seed, for every stage and split that the first seed scored."""
    return {
        f"{stage}.{split}.{METRIC}": [one[stage][split][METRIC] for one in metrics]
        for stage, splits in metrics[0].items()
        for split, scores in splits.items()
        if METRIC in scores
    }
