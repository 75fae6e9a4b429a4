"""Many specs to records: skip what is done, resume what was interrupted, isolate failures."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from suite.attempt import Attempt, RunOptions, write_error_log
from suite.data.base import Dataset, DistributionData, TextData
from suite.errors import InputError, Interrupted, RunFailed, SuiteError, first_line
from suite.models.turns import TURNS
from suite.records.record import Record, Status
from suite.records.store import Store
from suite.spec import components
from suite.spec.run_spec import RunSpec, canonical_json
from suite.training.checkpoint import CheckpointFile

Outcome = Literal["finished", "failed", "diverged", "interrupted", "skipped", "busy"]


@dataclass
class Summary:
    """What became of each cell, in order."""

    outcomes: list[tuple[RunSpec, Outcome]] = field(default_factory=list)

    def count(self, *kinds: Outcome) -> int:
        """Number of cells that ended in one of ``kinds``."""
        return sum(outcome in kinds for _, outcome in self.outcomes)


class Runner:
    """Runs cells one after the other, or several at once on one GPU; data of the same dataset is loaded once."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._loaded: dict[str, tuple[Dataset, TextData | DistributionData]] = {}
        self._loading = threading.Lock()

    def run_all(self, specs: Sequence[RunSpec]) -> Summary:
        """Run every cell that has no finished record; one cell's failure does not stop the others.

        Raises:
            InputError: something no other cell can do without, such as a corpus, is wrong.
            RunFailed: a file of the results cannot be written; no other cell's could.
            Interrupted: asked to stop; the cell at hand has a checkpoint.
        """
        return Summary([(spec, self._run_cell(spec, index, len(specs))) for index, spec in enumerate(specs, 1)])

    def run_packed(self, specs: Sequence[RunSpec], at_once: int) -> Summary:
        """As :meth:`run_all`, ``at_once`` cells at a time in threads, each on a stream of its own.

        Small batches leave a large GPU mostly idle: several runs together take little longer than one. What they cost
        says nothing, and their records say so. Each draws from a generator of its own; on a CPU they would share
        torch's, and no run would repeat.

        Raises:
            InputError: the cells differ in a setting that a process has but once.
        """
        if len({spec.recipe["deterministic"] for spec in specs}) > 1:
            raise InputError(
                "--pack: the cells differ in recipe.deterministic, which one process cannot have both ways; run them "
                "in separate commands"
            )
        ending = threading.Event()

        def run(spec: RunSpec, index: int) -> Outcome:
            # One was stopped, or its input is wrong: what has not begun does not begin.
            if ending.is_set():
                raise CancelledError
            try:
                return self._run_cell(spec, index, len(specs))
            except BaseException:
                ending.set()
                raise

        try:
            with ThreadPoolExecutor(max_workers=at_once) as pool:
                waiting = [pool.submit(run, spec, index) for index, spec in enumerate(specs, 1)]
        finally:
            ending.set()  # also where an interrupt reached this thread as it waited
        # In order, so that the first to fail is met before any that it kept from beginning.
        return Summary([(spec, future.result()) for spec, future in zip(specs, waiting, strict=True)])

    def _run_cell(self, spec: RunSpec, index: int, total: int) -> Outcome:
        try:
            with components.using(components.Plugins.from_paths(spec.plugin_paths, spec.plugins)):
                return self._run_unless_done(spec, f"[{index}/{total}]")
        except OSError as error:
            if not self._options.store.is_about(error):
                raise
            raise RunFailed(
                f"{error.filename}: {error.strerror}. What was there before is whole; once that is mended, the same "
                "command goes on from the last checkpoint"
            ) from error

    def _done(self, spec: RunSpec) -> Record | None:
        """The cell's finished record, unless it is to be run again all the same."""
        known = None if self._options.rerun else self._options.store.get(spec.run_key)
        return known if known is not None and known.status == "finished" else None

    def _close_killed(self, record: Record) -> None:
        """Finish what a kill between a record and the end of its run left; a rerun that can go on is left alone."""
        store = self._options.store
        checkpoint = CheckpointFile(store.run_dir(record.run_key), record.run_key)
        if not checkpoint.exists():
            return
        with store.lock(record.run_key) as ours:
            saved = checkpoint.load(lambda _line: None) if ours else {"started": None}
            if saved is None or saved["started"] == record.provenance.started:
                _close(store, record.run_key, record.status)

    def _run_unless_done(self, spec: RunSpec, place: str) -> Outcome:
        store, progress = self._options.store, self._options.progress
        heading = f"{place} {spec.name}"
        known = self._done(spec)
        if known is not None:
            self._close_killed(known)
            progress.say(f"{heading}: done before (record {spec.run_key[:12]})")
            return "skipped"
        with store.lock(spec.run_key) as ours:
            if not ours:
                progress.say(f"{heading}: another process is running it")
                return "busy"
            # Another process may have finished it between the look above and the lock.
            if self._done(spec) is not None:
                progress.say(f"{heading}: done before (record {spec.run_key[:12]})")
                return "skipped"
            progress.say(heading)
            if self._options.packed:
                progress = progress.named(place)
            loaded = self.load(spec)
            # All of the attempt, its meters too: what it asks of the GPU would end another's recording.
            with TURNS.member():
                # What the cell before left behind must not count as this one's memory, and its stream is free again.
                gc.collect()
                torch.cuda.empty_cache()
                record = Attempt(spec, replace(self._options, progress=progress), loaded).run()
            store.write(record, replace=self._options.rerun and record.status == "finished")
            _close(store, spec.run_key, record.status)
            progress.say("  " + _closing_line(record))
            if record.status == "interrupted":
                raise Interrupted(record.message or "stopped")
            return record.status

    def load(self, spec: RunSpec) -> tuple[Dataset, TextData | DistributionData]:
        """The dataset of a cell and its data, read once however many cells share it.

        Raises:
            InputError: the dataset cannot be loaded.
        """
        with self._loading:
            return self._load_once(spec)

    def _load_once(self, spec: RunSpec) -> tuple[Dataset, TextData | DistributionData]:
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


def _close(store: Store, run_key: str, status: Status) -> None:
    """After the record is safe: note the end, and drop the checkpoints of a run that will not go on."""
    store.events(run_key).append("end", status=status)
    if status == "finished":
        CheckpointFile(store.run_dir(run_key), run_key).remove()


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
