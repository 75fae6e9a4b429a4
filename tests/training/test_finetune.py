"""Finetuning: where it starts, what it may replace, when it ends, and that stages chain whatever interrupts them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import run as run_cell

from suite.attempt import Attempt
from suite.errors import InputError, Interrupted
from suite.records.record import Record
from suite.records.store import Store
from suite.spec.plan import expand
from suite.spec.recipe import Recipe
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task
from suite.training.finetune import Finetune

TASK = """
title: Small enough to be run many times
version: 1
protocol: test
dataset: {name: hidden-markov, vocabulary: 20, states: 6, train_tokens: 600, valid_tokens: 120, test_tokens: 120}
encoder: {name: awd-lstm, embedding: 6, hidden: [8, 6]}
head: {name: mos, experts: 2, latent_dropout: 0.2}
seeds: [3]
stages: [STAGES]
recipe:
  batch_size: 4
  bptt: 20
  random_length: {std: 5, minimum: 5, max_excess: 10}
  optimizer: {name: sgd, lr: 5, weight_decay: 1.0e-6}
  clip: 0.25
  budget: {epochs: 2}
"""
CHAIN = (
    "train, {name: finetune, epochs: 3, lr: 8}, {name: dynamic-evaluation, statistics_batch: 5}, "
    "{name: cache, window: 20}, rank, {name: divergence, pairs: 20}"
)


def cell(folder: Path, stages: str) -> RunSpec:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(TASK.replace("STAGES", stages))
    (spec,) = expand(load_task(path))
    return spec


def run(store: Store, spec: RunSpec, stop: Callable[[], str | None] = lambda: None) -> Record:
    """As :func:`test_resume.run`, also where ``stop`` ends the run."""
    with suppress(Interrupted):
        return run_cell(store, spec, stop)
    record = store.get(spec.run_key)
    assert record is not None
    return record


def weights(store: Store, spec: RunSpec) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(store.run_dir(spec.run_key) / "weights.pt", weights_only=True)
    return loaded


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def outcome(record: Record) -> Any:
    curves = [{k: v for k, v in point.items() if k != "seconds"} for point in record.curves]
    return record.status, record.message, record.metrics, curves


def test_it_goes_on_from_the_best_weights_and_keeps_better_ones(tmp_path: Path) -> None:
    trained, tuned = Store(tmp_path / "a/results"), Store(tmp_path / "b/results")
    first = cell(tmp_path / "a", "train")
    second = cell(tmp_path / "b", "train, {name: finetune, epochs: 3, lr: 8}")
    before, after = run(trained, first), run(tuned, second)
    assert (before.status, after.status) == ("finished", "finished")
    assert after.metrics["train"] == before.metrics["train"]
    assert after.metrics["finetune"]["valid"]["nll"] < before.metrics["train"]["valid"]["nll"]
    assert not same(weights(trained, first), weights(tuned, second))
    assert all("stage" not in point for point in after.curves[:2])
    points = [point for point in after.curves if point.get("stage") == 1]
    assert [point["epoch"] for point in points] == [3, 4, 5]
    assert [point["lr"] for point in points] == [8, 8, 8]
    assert all(point["averaged"] for point in points)
    assert after.curves[1]["step"] < points[0]["step"] < points[1]["step"]
    assert min(p["valid_nll"] for p in points) == pytest.approx(after.metrics["finetune"]["valid"]["nll"])
    events = [event for event in tuned.events(second.run_key) if event["type"] == "epoch"]
    assert [event["stage"] for event in events] == ["train"] * 2 + ["finetune"] * 3


def test_worse_weights_replace_nothing(tmp_path: Path) -> None:
    trained, tuned = Store(tmp_path / "a/results"), Store(tmp_path / "b/results")
    first = cell(tmp_path / "a", "train")
    second = cell(tmp_path / "b", "train, {name: finetune, epochs: 2, lr: 5000}")
    run(trained, first)
    after = run(tuned, second)
    assert after.status == "finished"
    assert min(point["valid_nll"] for point in after.curves if point.get("stage") == 1) > 3
    assert same(weights(trained, first), weights(tuned, second))
    assert after.metrics["finetune"]["valid"] == after.metrics["train"]["valid"]


def test_it_ends_when_validation_is_above_its_best_of_a_while_ago(tmp_path: Path) -> None:
    store, spec = (
        Store(tmp_path / "results"),
        cell(tmp_path, "train, {name: finetune, epochs: 50, patience: 2, lr: 60}"),
    )
    record = run(store, spec)
    losses = [point["valid_nll"] for point in record.curves if point.get("stage") == 1]
    ends = [i for i in range(len(losses)) if i > 2 and losses[i] > min(losses[: i - 2])]
    assert record.status == "finished"
    assert ends == [len(losses) - 1], "at the first such evaluation and not before"
    assert len(losses) < 50


@pytest.mark.parametrize("after", [11, 32])
def test_a_chain_of_stages_killed_again_and_again_ends_the_same(tmp_path: Path, after: int) -> None:
    whole, pieces = Store(tmp_path / "whole/results"), Store(tmp_path / "pieces/results")
    expected = run(whole, cell(tmp_path / "whole", CHAIN))
    assert expected.status == "finished"
    assert list(expected.metrics) == ["train", "finetune", "dynamic-evaluation", "cache", "rank", "divergence"]
    spec = cell(tmp_path / "pieces", CHAIN)
    record = None
    for _ in range(400):
        left = iter(range(after))
        record = run(pieces, spec, lambda left=left: None if next(left, None) is not None else "stopped")  # type: ignore[misc]
        if record.status != "interrupted":
            break
    assert record is not None
    assert outcome(record) == outcome(expected)
    assert same(weights(whole, spec), weights(pieces, spec))


def test_killed_just_after_it_replaced_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = "train, {name: finetune, epochs: 3, lr: 8}"
    whole, cut = Store(tmp_path / "whole/results"), Store(tmp_path / "cut/results")
    expected = run(whole, cell(tmp_path / "whole", stages))
    spec = cell(tmp_path / "cut", stages)
    save = Attempt._save

    def dying(self: Attempt, state: dict[str, Any] | None) -> None:
        if state is None and self._stage_index == 2:
            raise RuntimeError("power cut")
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "_save", dying)
        assert run(cut, spec).message == "RuntimeError: power cut"
    assert same(weights(whole, spec), weights(cut, spec)), "the better weights are there already"
    assert outcome(run(cut, spec)) == outcome(expected)
    assert same(weights(whole, spec), weights(cut, spec))


def test_the_recipe_is_the_runs_but_for_what_finetuning_is() -> None:
    run_recipe = Recipe.model_validate(
        {
            "bptt": 30,
            "random_length": {"std": 4.0, "max_excess": 40},
            "optimizer": {"name": "sgd", "lr": 20.0, "weight_decay": 1.2e-6},
            "averaging": {"trigger": "non-monotone", "late_learning_rate": True},
            "track_averages": [2, "non-monotone"],
            "schedule": {"name": "one-cycle", "warmup_steps": 3},
            "budget": {"epochs": 500, "steps": 9},
            "evaluation": {"every_epochs": 2, "variants": ["official"]},
        }
    )
    tuned = Finetune(lr=25.0, epochs=7, max_excess=10).recipe(run_recipe)
    changed = {name for name in Recipe.model_fields if getattr(tuned, name) != getattr(run_recipe, name)}
    assert changed == {"random_length", "optimizer", "averaging", "track_averages", "schedule", "budget"}
    assert tuned.random_length is not None
    assert (tuned.random_length.max_excess, tuned.random_length.std) == (10, 4.0)
    assert (tuned.optimizer.lr, tuned.optimizer.weight_decay) == (25.0, 1.2e-6)
    assert tuned.averaging is not None
    assert tuned.averaging.model_dump() == {"trigger": "epoch", "epoch": 1, "late_learning_rate": True}
    assert tuned.budget.model_dump() == {"epochs": 7, "steps": None}
    assert Finetune().recipe(run_recipe).optimizer == run_recipe.optimizer
    assert not Finetune().recipe(Recipe()).averaging.late_learning_rate  # type: ignore[union-attr]


def test_what_cannot_work_is_refused() -> None:
    message = r"\Astage finetune is averaged SGD, and the recipe's optimizer is adamw\Z"
    with pytest.raises(InputError, match=message):
        Finetune().recipe(Recipe.model_validate({"optimizer": {"name": "adamw"}}))
    message = r"\Astage finetune: max_excess bounds random lengths, and the recipe has none\Z"
    with pytest.raises(InputError, match=message):
        Finetune(max_excess=10).recipe(Recipe())


def test_its_random_streams_are_its_own(tmp_path: Path) -> None:
    """The same weights, recipe and budget as the train stage's own first epochs, yet other masks and lengths."""
    store = Store(tmp_path / "results")
    record = run(store, cell(tmp_path, "train, {name: finetune, epochs: 2}"))
    steps = [point["step"] for point in record.curves]
    nats = [point["train_nll"] for point in record.curves]
    assert len(set(nats)) == len(nats)
    assert not np.array_equal(np.diff([0, *steps])[:2], np.diff([0, *steps])[2:])
    assert all(math.isfinite(n) for n in nats)
