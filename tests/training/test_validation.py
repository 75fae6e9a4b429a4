"""The best weights: kept in memory, written with a checkpoint and at the end, never apart from what they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import TEXT_TASK, Killed, StopAt, cell, outcome, run

from suite.errors import Interrupted
from suite.records.store import Store
from suite.training import validation
from suite.training.checkpoint import save_atomically

TASK = TEXT_TASK.replace("stages: [train, rank]", "stages: [train]")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every set of best weights that goes to the disk."""
    found: list[dict[str, Any]] = []

    def keep(payload: dict[str, Any], path: Path) -> None:
        found.append({name: value.clone() for name, value in payload.items()})
        save_atomically(payload, path)

    monkeypatch.setattr(validation, "save_atomically", keep)
    return found


def test_without_a_checkpoint_the_best_weights_are_written_once(tmp_path: Path, written: list[dict[str, Any]]) -> None:
    spec = cell(tmp_path, TASK)
    store = Store(tmp_path / "results")
    record = run(store, spec)
    assert len(written) == 1
    kept = torch.load(store.run_dir(spec.run_key) / "weights.pt", weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in written[0].items())
    best = min(point["valid_ppl"] for point in record.curves)
    assert record.metrics["train"]["valid"]["ppl"] == best, "what is scored at the end are the best, not the last"


def test_with_checkpoints_they_are_written_when_they_are_new(tmp_path: Path, written: list[dict[str, Any]]) -> None:
    spec = cell(tmp_path, TASK)
    record = run(Store(tmp_path / "results"), spec, every=0.0)
    losses = [point["valid_nll"] for point in record.curves]
    better = sum(loss < min(losses[:i], default=float("inf")) for i, loss in enumerate(losses))
    assert len(written) == better


@pytest.mark.parametrize("asked", [14, 19])
def test_a_kill_after_the_weights_and_before_the_checkpoint_repeats_the_run(
    tmp_path: Path, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = cell(tmp_path, TASK)
    whole = run(Store(tmp_path / "whole" / "results"), spec)
    store = Store(tmp_path / "killed" / "results")
    with pytest.raises(Interrupted):
        run(store, spec, StopAt(asked))
    before = (store.run_dir(spec.run_key) / "checkpoint.pt").read_bytes()

    def torn(payload: dict[str, Any], path: Path) -> None:
        save_atomically(payload, path)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(validation, "save_atomically", torn)
        with pytest.raises(Killed):
            run(store, spec)
    # The weights are newer than the checkpoint now; going on from it finds them again or better ones.
    assert (store.run_dir(spec.run_key) / "checkpoint.pt").read_bytes() == before
    assert outcome(run(store, spec)) == outcome(whole)
