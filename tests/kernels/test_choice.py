"""Which kernel a head trains through, and what is said where the one asked for cannot run."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from suite.errors import InputError
from suite.kernels.choice import choose
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("device", "g", "chosen"),
    [
        (CPU, Identity(), "chunked"),
        (GPU, Identity(), "triton"),
        (GPU, Sigsoftmax(), "triton"),
        (GPU, GeneralizedSigsoftmax(k=3.0), "triton"),
        (GPU, Plif(knots=4), "chunked"),
    ],
)
def test_the_fastest_that_knows_the_function(device: torch.device, g: Pointwise, chosen: str) -> None:
    assert choose("auto", device, g) == chosen
    assert choose("reference", device, g) == "reference"
    assert choose("chunked", device, g) == "chunked"


def test_a_subclass_with_another_forward_is_not_taken_for_its_parent() -> None:
    class Shifted(Identity):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + 1

    assert choose("auto", GPU, Shifted()) == "chunked"


@pytest.mark.parametrize(
    ("device", "g", "reason"),
    [(CPU, Identity(), "needs a GPU"), (GPU, Plif(knots=4), "does not know the function Plif")],
)
def test_triton_where_it_cannot_run_is_refused(device: torch.device, g: Pointwise, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        choose("triton", device, g)
    assert str(caught.value) == f"recipe.kernel: triton {reason}; use auto or chunked"


def test_without_triton_a_gpu_takes_the_chunked_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose("auto", GPU, Identity()) == "chunked"
    with pytest.raises(InputError, match="is not installed"):
        choose("triton", GPU, Identity())
