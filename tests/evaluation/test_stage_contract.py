"""What every registered stage owes the run it is part of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import VOCABULARY, stream, table_model, text_model
from stage_runs import context_of, run_in_pieces

from suite.data.base import DistributionData, TextData
from suite.errors import InputError
from suite.models.heads.head import MixtureOfSoftmaxes
from suite.models.language_model import LanguageModel
from suite.spec.components import BUILTIN, create
from suite.spec.recipe import Recipe
from suite.stages import RunContext, Stage

# Small settings of each; a stage without an entry runs with its defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "finetune": {"epochs": 3, "lr": 0.5},
    "dynamic-evaluation": {"statistics_batch": 6},
    "cache": {"window": 9, "bptt": 4},
    "divergence": {"pairs": 50},
    "rank": {"splits": ["valid", "test"]},
}
TRAINING = ("train", "finetune")
MEASURING = sorted(BUILTIN["stage"].keys() - set(TRAINING))
RECIPE: dict[str, Any] = {"batch_size": 4, "bptt": 7, "optimizer": {"name": "sgd", "lr": 0.5}, "budget": {"epochs": 2}}


def build(name: str) -> Callable[[], Stage]:
    return lambda: create("stage", {"name": name, **OPTIONS.get(name, {})})


def model() -> LanguageModel:
    return text_model(MixtureOfSoftmaxes, experts=2, eps=1e-8, pointwise={"name": "plif", "knots": 20})


def context(folder: Path) -> RunContext:
    data = TextData({"train": stream(130), "valid": stream(24, seed=1), "test": stream(36, seed=2)}, VOCABULARY, {})
    torch.manual_seed(11)  # a stage that draws from what was there before would differ from one that resumes
    return context_of(model(), data, folder, Recipe.model_validate(RECIPE))


@pytest.mark.parametrize("name", BUILTIN["stage"])
def test_it_measures_finite_numbers_by_split(tmp_path: Path, name: str) -> None:
    at = context(tmp_path)
    stage = build(name)()
    assert stage.name == name
    scores = stage.run(at, None)
    assert scores.keys() == {"valid", "test"}
    assert all(values for values in scores.values())
    assert all(type(v) is float and math.isfinite(v) for values in scores.values() for v in values.values())
    assert at.clock.seconds.keys() <= {"setup", "train", "evaluate", "log"}
    assert at.clock.seconds["evaluate"] > 0


def settings(model: LanguageModel) -> list[dict[str, Any]]:
    """Modes, probabilities and the like of every module; which kernel ran last is a note, not a setting."""
    plain = (bool, int, float, str)
    return [
        {name: value for name, value in vars(m).items() if isinstance(value, plain) and name != "kernel_used"}
        for m in model.modules()
    ]


@pytest.mark.parametrize("name", MEASURING)
def test_a_stage_that_only_measures_leaves_everything_as_it_was(tmp_path: Path, name: str) -> None:
    at = context(tmp_path)
    at.model.train()
    at.model.head.eval()
    assert at.model.head.latent_dropout > 0
    weights = {n: t.clone() for n, t in at.model.state_dict().items()}
    before = settings(at.model)
    random = torch.get_rng_state()
    build(name)().run(at, None)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(t, weights[n]) for n, t in at.model.state_dict().items())
    assert settings(at.model) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("every", [2, 9])
@pytest.mark.parametrize("name", BUILTIN["stage"])
def test_stopped_and_taken_up_again_it_ends_the_same(tmp_path: Path, name: str, every: int) -> None:
    whole_context = context(tmp_path / "whole")
    whole = build(name)().run(whole_context, None)
    pieces, last, _ = run_in_pieces(build(name), lambda: context(tmp_path / "pieces"), every)
    assert pieces == whole
    for key, tensor in last.model.state_dict().items():
        assert torch.equal(tensor, whole_context.model.state_dict()[key])
    curves = [[{k: v for k, v in p.items() if k != "seconds"} for p in c.curves] for c in (last, whole_context)]
    assert curves[0] == curves[1]
    assert last.spectra == whole_context.spectra
    assert last.functions == whole_context.functions
    assert list(last.functions) == ([name] if name in TRAINING else [])


@pytest.mark.parametrize("name", MEASURING)
def test_a_text_stage_refuses_other_data(tmp_path: Path, name: str) -> None:
    at = context_of(table_model(3, 4), DistributionData(np.full((3, 4), 0.25), {}), tmp_path)
    with pytest.raises(InputError, match=rf"\Astage {name} needs a text dataset\Z"):
        build(name)().run(at, None)
