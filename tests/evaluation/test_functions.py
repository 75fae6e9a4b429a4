"""The sample of a learned function that a record keeps: where it is taken, and that nothing is disturbed by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import VOCABULARY, stream, table_model, text_model
from stage_runs import context_of

from suite.data.base import DistributionData, TextData
from suite.evaluation.functions import keep_function, learned_function
from suite.models.heads.head import MixtureOfSoftmaxes, Softmax
from suite.models.language_model import LanguageModel
from suite.stages import RunContext

PLIF = {"name": "plif", "knots": 40, "bound": 3.0}


def text(model: LanguageModel, folder: Path, valid: int = 30) -> RunContext:
    return context_of(model, TextData({"valid": stream(valid, seed=1)}, VOCABULARY, {}), folder)


def all_logits(at: RunContext) -> torch.Tensor:
    """Every logit of the validation text, read in one piece."""
    model, ids = at.model.eval(), torch.from_numpy(np.array(at.data.streams["valid"])).long()[:-1, None]  # type: ignore[union-attr]
    with torch.no_grad():
        contexts = model.encoder(ids, model.encoder.initial_state(1, at.device)).output.squeeze(1)
        latent, _ = model.head.mixture(contexts)
        return (latent @ model.head.weight.T + model.head.bias).flatten()


@pytest.mark.parametrize("name", ["plif", "monotonic-network"])
def test_it_is_g_over_the_logits_that_were_seen(tmp_path: Path, name: str) -> None:
    at = text(text_model(MixtureOfSoftmaxes, experts=2, pointwise={"name": name}), tmp_path)
    with torch.no_grad():
        for parameter in at.model.head.pointwise.parameters():
            parameter.add_(torch.linspace(0, 1, parameter.numel()).view_as(parameter))
    z, g, shares, built = np.array(learned_function(at)).T
    logits = all_logits(at).float().numpy()
    assert len(z) == 257
    assert (z[0], z[-1]) == pytest.approx((logits.min(), logits.max()), rel=1e-6)
    assert np.diff(z) == pytest.approx((z[-1] - z[0]) / 256, rel=1e-3)
    with torch.no_grad():
        expected = at.model.head.pointwise.double()(torch.from_numpy(z))
        before = at.pointwise_start.double()(torch.from_numpy(z))
    assert g == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-5)
    assert built == pytest.approx(before.numpy(), rel=1e-5, abs=1e-5)
    assert np.abs(np.diff(g) - np.diff(built)).max() > 1e-3, "what training made of it"
    assert (np.diff(g) > 0).all()
    seen = [(logits <= place).mean() for place in z]
    assert shares == pytest.approx(seen, abs=2.5 / len(logits))
    assert shares[-1] == 1.0


def test_distributions_have_contexts_too(tmp_path: Path) -> None:
    model = table_model(300, 4, pointwise=PLIF)
    at = context_of(model, DistributionData(np.full((300, 4), 0.25), {}), tmp_path)
    keep_function(at, "train")
    assert list(at.functions) == ["train"]
    assert len(at.functions["train"]) == 257


@pytest.mark.parametrize("pointwise", ["identity", "sigsoftmax", {**PLIF, "frozen": True}])
def test_what_is_not_learned_is_not_kept(tmp_path: Path, pointwise: Any) -> None:
    at = text(text_model(Softmax, pointwise=pointwise), tmp_path)
    keep_function(at, "train")
    assert at.functions == {}


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_logits_without_a_range_have_no_function(tmp_path: Path, weight: float) -> None:
    at = text(text_model(Softmax, pointwise=PLIF), tmp_path)
    with torch.no_grad():
        at.model.head.weight.fill_(weight)
        at.model.head.bias.zero_()  # type: ignore[union-attr]
    assert learned_function(at) == []


def test_nothing_is_disturbed(tmp_path: Path) -> None:
    at = text(text_model(MixtureOfSoftmaxes, experts=2, pointwise=PLIF), tmp_path)
    at.model.train()
    at.model.head.eval()
    modes = [module.training for module in at.model.modules()]
    weights = {name: tensor.clone() for name, tensor in at.model.state_dict().items()}
    random = torch.get_rng_state()
    assert learned_function(at) == learned_function(at)
    assert [module.training for module in at.model.modules()] == modes
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in at.model.state_dict().items())
