"""Half precision on a CPU: near float32, in training alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from suite.data.base import TextData
from suite.models.encoders.base import Encoder
from suite.models.language_model import LanguageModel
from suite.spec.components import create
from suite.spec.recipe import Arithmetic, Recipe
from suite.training.averages import Averages
from suite.training.objectives import NextWord, Work
from suite.training.step import EagerStep

WORDS, BATCH, LENGTH = 40, 4, 12
CPU = torch.device("cpu")
ENCODERS: dict[str, dict[str, Any]] = {
    "awd-lstm": {"name": "awd-lstm", "embedding": 12, "hidden": [16, 12]},
    "lstm": {"name": "lstm", "embedding": 12, "hidden": [16, 12], "dropout": 0.2},
    "transformer": {"name": "transformer", "width": 16, "layers": 2, "attention_heads": 2, "feedforward": 32},
}
HALVES: list[Arithmetic] = ["float16", "bfloat16"]


def step(encoder: dict[str, Any], kind: Arithmetic) -> EagerStep:
    torch.manual_seed(0)
    recipe = Recipe.model_validate(
        {
            "batch_size": BATCH,
            "clip": 0.25,
            "optimizer": {"name": "sgd", "lr": 5.0},
            "precision": {"recurrence": kind, "head": kind},
        }
    )
    made: Encoder = create("encoder", encoder, WORDS, None)
    head = create("head", {"name": "mos", "experts": 2}, made.context_size, WORDS, made.output_weight)
    made.arithmetic, head.arithmetic = recipe.precision.recurrence, recipe.precision.head
    model = LanguageModel(made, head).train()
    stream = np.random.default_rng(0).integers(WORDS, size=BATCH * 100).astype(np.int32)
    objective = NextWord(TextData({"train": stream, "valid": stream, "test": stream}, WORDS, {}), recipe, 0, CPU)
    averages = Averages(list(model.parameters()), recipe)
    built = EagerStep(model, objective, recipe, averages, torch.zeros((), dtype=torch.float64), None)
    objective.prepare(model)
    return built


def gradient(built: EagerStep) -> torch.Tensor:
    """Of all parameters, without the loss scale."""
    torch.manual_seed(1)
    built.objective.stage(Work(0, LENGTH, 1.0, LENGTH * BATCH))
    built.differentiate(LENGTH)
    return torch.cat([p.grad.flatten() for p in built.parameters if p.grad is not None]) / built.scale


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_are_near_those_of_float32(name: str, kind: Arithmetic) -> None:
    exact, rounded = step(ENCODERS[name], "float32"), step(ENCODERS[name], kind)
    expected, found = gradient(exact), gradient(rounded)
    assert found.dtype == torch.float32
    assert {p.dtype for p in rounded.parameters} == {torch.float32}, "the weights that are updated stay float32"
    error = ((found - expected).norm() / expected.norm()).item()
    assert 0.0 < error < (1e-2 if kind == "float16" else 5e-2)
    assert rounded.nats.item() == pytest.approx(exact.nats.item(), rel=1e-3 if kind == "float16" else 1e-2)


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("name", ENCODERS)
def test_training_follows_float32(name: str, kind: Arithmetic) -> None:
    found = []
    for arithmetic in ("float32", kind):
        built = step(ENCODERS[name], arithmetic)  # type: ignore[arg-type]
        torch.manual_seed(2)
        for index in range(8):
            built(Work(LENGTH * index, LENGTH, 1.0, LENGTH * BATCH), 1.0)
        found.append(built.nats.item())
    assert found[1] == pytest.approx(found[0], rel=2e-2)


@pytest.mark.parametrize("name", ENCODERS)
def test_half_precision_is_of_training_alone(name: str) -> None:
    model = step(ENCODERS[name], "bfloat16").model
    encoder = model.encoder
    assert encoder.half_dtype == torch.bfloat16
    model.eval()
    assert encoder.half_dtype is None
    state = encoder.initial_state(BATCH, CPU)
    assert all(part.dtype == torch.float32 for part in state)
    words = torch.arange(LENGTH * BATCH).view(LENGTH, BATCH) % WORDS
    with torch.no_grad():
        half = encoder(words, state)
        encoder.arithmetic = "float32"
        full = encoder(words, state)
    assert torch.equal(half.output, full.output)


@pytest.mark.parametrize("name", ["awd-lstm", "lstm"])
def test_the_carried_state_has_the_dtype_of_the_recurrence(name: str) -> None:
    built = step(ENCODERS[name], "float16")
    assert {part.dtype for part in built.objective.carried()} == {torch.float16}
    gradient(built)
    assert all(part.dtype == torch.float16 and part.abs().max() > 0 for part in built.objective.carried())


@pytest.mark.parametrize(("kind", "dtype"), [("float32", None), ("tf32", None), ("float16", torch.float16)])
def test_only_half_precision_is_a_dtype(kind: Arithmetic, dtype: torch.dtype | None) -> None:
    encoder = step(ENCODERS["lstm"], kind).model.encoder
    assert encoder.half_dtype is dtype
