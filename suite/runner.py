"""Many specs to records: skip what is done, resume what was interrupted, isolate failures."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from suite.attempt import Attempt, RunOptions, first_line, write_error_log
from suite.data.base import Dataset, DistributionData, TextData
from suite.errors import InputError, Interrupted, SuiteError
from suite.records.record import Record
from suite.spec import components
from suite.spec.run_spec import RunSpec, canonical_json

Outcome = Literal["finished", "failed", "diverged", "interrupted", "skipped", "busy"]


@dataclass
class Summary:
    """What became of each cell, in order."""

    outcomes: list[tuple[RunSpec, Outcome]] = field(default_factory=list)

    def count(self, *kinds: Outcome) -> int:
        """Number of cells that ended in one of ``kinds``."""
        return sum(outcome in kinds for _, outcome in self.outcomes)


class Runner:
    """Runs cells one after the other; data of the same dataset is loaded once."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._loaded: dict[str, tuple[Dataset, TextData | DistributionData]] = {}

    def run_all(self, specs: Sequence[RunSpec]) -> Summary:
        """Run every cell that has no finished record; one cell's failure does not stop the others.

        Raises:
            InputError: something no other cell can do without, such as a corpus, is wrong.
            Interrupted: asked to stop; the cell at hand has a checkpoint.
        """
        summary = Summary()
        for index, spec in enumerate(specs, 1):
            heading = f"[{index}/{len(specs)}] {spec.name}"
            with components.using(components.Plugins.from_paths(spec.plugin_paths, spec.plugins)):
                summary.outcomes.append((spec, self._run_unless_done(spec, heading)))
        return summary

    def _run_unless_done(self, spec: RunSpec, heading: str) -> Outcome:
        store, progress = self._options.store, self._options.progress
        known = store.get(spec.run_key)
        if known is not None and known.status == "finished" and not self._options.rerun:
            progress.say(f"{heading}: done before (record {spec.run_key[:12]})")
            return "skipped"
        with store.lock(spec.run_key) as ours:
            if not ours:
                progress.say(f"{heading}: another process is running it")
                return "busy"
            progress.say(heading)
            # What the cell before left behind must not count as this one's memory.
            gc.collect()
            torch.cuda.empty_cache()
            attempt = Attempt(spec, self._options, self._load(spec))
            record = attempt.run()
            store.write(record, replace=self._options.rerun and record.status == "finished")
            attempt.close(record.status)
            progress.say("  " + _closing_line(record))
            if record.status == "interrupted":
                raise Interrupted(record.message or "stopped")
            return record.status

    def _load(self, spec: RunSpec) -> tuple[Dataset, TextData | DistributionData]:
        key = canonical_json([spec.dataset.as_dict(), dict(spec.plugins)])
        if key not in self._loaded:
            try:
                dataset: Dataset = components.create("dataset", spec.dataset)
                self._loaded[key] = (dataset, dataset.load(self._options.access))
            except SuiteError:
                raise
            except Exception as error:
                # A user's own dataset may raise anything; its task has no cell that could go on without it.
                log = write_error_log(self._options.store.run_dir(spec.run_key))
                raise InputError(
                    f"dataset {spec.labels.dataset} cannot be loaded: {type(error).__name__}: {first_line(error)}; "
                    f"{log} says where"
                ) from error
        return self._loaded[key]


def _closing_line(record: Record) -> str:
    if record.status != "finished":
        return f"{record.status}: {record.message}"
    scores = record.metrics.get("train", {})
    parts = [
        f"{split} {metric} {scores[split][metric]:.3f}"
        for split in ("valid", "test")
        for metric in ("ppl", "kl", "mode_match")
        if metric in scores.get(split, {})
    ]
    seconds = record.costs.seconds["total"] if record.costs else 0.0
    return "  ".join([*parts, f"{seconds:.1f} s"])
