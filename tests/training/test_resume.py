"""A run killed at any step and taken up again ends bit for bit where the uninterrupted run ends (CPU)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.attempt import RunOptions
from suite.data.base import DataAccess
from suite.errors import Interrupted
from suite.progress import Progress
from suite.records.record import Record
from suite.records.store import Store
from suite.runner import Runner
from suite.spec.plan import expand
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task

TEXT_TASK = """
title: Small enough to be run many times
version: 1
protocol: test
dataset: {name: hidden-markov, vocabulary: 20, states: 6, train_tokens: 900, valid_tokens: 200, test_tokens: 200}
encoder: {name: awd-lstm, embedding: 6, hidden: [8, 6]}
head: {name: mos, experts: 2, latent_dropout: 0.2, pointwise: {name: plif, knots: 50}}
seeds: [3]
stages: [train, rank]
recipe:
  batch_size: 4
  micro_batch: 2
  bptt: 20
  random_length: {std: 5, minimum: 5, max_excess: 10}
  optimizer: {name: sgd, lr: 5, weight_decay: 1.0e-6}
  pointwise_lr: 0.1
  averaging: {trigger: epoch, epoch: 2, late_learning_rate: true}
  activation_regularization: 2
  temporal_regularization: 1
  clip: 0.25
  budget: {epochs: 3}
"""

ADAMW_TASK = """
title: Known distributions
version: 1
protocol: test
dataset: {name: categorical, contexts: 30, words: 12}
encoder: {name: table, dimension: 3}
head: {name: softmax, pointwise: {name: monotonic-network, units: 4}}
seeds: [5]
recipe:
  batch_size: 7
  optimizer: {name: adamw, lr: 0.05}
  schedule: {name: one-cycle, warmup_steps: 3}
  budget: {epochs: 4}
"""


def cell(folder: Path, text: str) -> RunSpec:
    path = folder / "tiny.yaml"
    path.write_text(text)
    (spec,) = expand(load_task(path))
    return spec


def run(store: Store, spec: RunSpec, stop: Callable[[], str | None] = lambda: None, every: float = 1e9) -> Record:
    store.root.mkdir(parents=True, exist_ok=True)
    with (store.root.parent / "log").open("a") as log:
        options = RunOptions(
            store=store,
            device=torch.device("cpu"),
            access=DataAccess(),
            progress=Progress(log),
            stop=stop,
            checkpoint_seconds=every,
        )
        Runner(options).run_all([spec])
    record = store.get(spec.run_key)
    assert record is not None
    return record


def outcome(record: Record) -> dict[str, Any]:
    """What must not depend on interruptions: everything but times, costs and provenance."""
    curves = [{k: v for k, v in point.items() if k != "seconds"} for point in record.curves]
    return {"metrics": record.metrics, "curves": curves, "status": record.status}


class StopAt:
    """Asks to stop at the n-th time it is asked."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> str | None:
        self.left -= 1
        return "stopped by the test" if self.left <= 0 else None


def run_in_pieces(store: Store, spec: RunSpec) -> tuple[Record, int]:
    """The run, stopped whenever it has asked five times and taken up again, and how often that was."""
    stops = 0
    while True:
        try:
            return run(store, spec, StopAt(5)), stops
        except Interrupted:
            partial = store.get(spec.run_key)
            assert partial is not None
            assert (partial.status, partial.message) == ("interrupted", "stopped by the test")
            stops += 1


# One average judged from epoch 2 on, one beside it, and the non-monotone trigger still waiting.
AVERAGES_TASK = TEXT_TASK.replace("  clip: 0.25\n", "  clip: 0.25\n  track_averages: [1, 3, non-monotone]\n").replace(
    "stages: [train, rank]", "stages: [train]"
)


@pytest.mark.parametrize(
    "text", [TEXT_TASK, ADAMW_TASK, AVERAGES_TASK], ids=["text", "distributions", "several averages"]
)
def test_interrupted_again_and_again_it_ends_where_the_whole_run_ends(tmp_path: Path, text: str) -> None:
    spec = cell(tmp_path, text)
    whole = run(Store(tmp_path / "whole" / "results"), spec)
    assert whole.status == "finished"
    resumed, stops = run_in_pieces(Store(tmp_path / "parts" / "results"), spec)
    assert stops > 3
    assert resumed.provenance.attempts == stops + 1
    assert outcome(resumed) == outcome(whole)


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the suite sees it."""


@pytest.mark.parametrize("step", [3, 11, 26])
def test_a_kill_loses_only_what_came_after_the_last_checkpoint(tmp_path: Path, step: int) -> None:
    spec = cell(tmp_path, TEXT_TASK)
    whole = run(Store(tmp_path / "whole" / "results"), spec)
    store = Store(tmp_path / "killed" / "results")
    asked = 0

    def kill() -> str | None:
        nonlocal asked
        asked += 1
        if asked == step:
            raise Killed
        return None

    with pytest.raises(Killed):
        run(store, spec, kill, every=0.0)
    assert store.get(spec.run_key) is None, "a killed run leaves no record"
    assert outcome(run(store, spec)) == outcome(whole)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK)
    whole = run(Store(tmp_path / "whole" / "results"), spec)
    store = Store(tmp_path / "parts" / "results")
    with pytest.raises(Interrupted):
        run(store, spec, StopAt(9), every=0.0)
    folder = store.run_dir(spec.run_key)
    newest = folder / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert (folder / "checkpoint.previous.pt").exists()
    assert outcome(run(store, spec)) == outcome(whole)
    assert "checkpoint.pt is damaged (" in (tmp_path / "parts" / "log").read_text()


def test_with_every_checkpoint_damaged_the_run_starts_from_the_beginning(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK)
    store = Store(tmp_path / "results")
    with pytest.raises(Interrupted):
        run(store, spec, StopAt(9), every=0.0)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (store.run_dir(spec.run_key) / name).write_bytes(b"not a checkpoint")
    assert run(store, spec).status == "finished"


def test_a_finished_run_leaves_no_checkpoint_and_is_not_run_again(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK)
    store = Store(tmp_path / "results")
    first = run(store, spec)
    assert sorted(p.name for p in store.run_dir(spec.run_key).iterdir()) == ["events.jsonl", "lock", "weights.pt"]
    path = store.path_of(first)
    before = path.stat().st_mtime_ns
    run(store, spec)
    assert path.stat().st_mtime_ns == before


def test_a_loss_that_is_not_finite_ends_as_diverged_and_fills_no_number(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK.replace("lr: 5,", "lr: 1.0e+38,").replace("clip: 0.25", "clip: null"))
    record = run(Store(tmp_path / "results"), spec)
    assert record.status == "diverged"
    assert record.metrics == {}
    assert record.message is not None
    assert "not" in record.message
    assert "finite" in record.message
    json.dumps(record.model_dump(mode="json"), allow_nan=False)


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    spec = cell(tmp_path, TEXT_TASK)
    other = cell(tmp_path, TEXT_TASK.replace("seeds: [3]", "seeds: [4]"))
    first = run(Store(tmp_path / "a" / "results"), spec)
    again = run(Store(tmp_path / "b" / "results"), spec)
    different = run(Store(tmp_path / "a" / "results"), other)
    assert outcome(first) == outcome(again)
    assert first.metrics != different.metrics
