"""Which kernel a head trains through, and what is said where the one asked for cannot run."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import pytest
import torch

from suite.errors import InputError
from suite.kernels.choice import choose
from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise, Sigsoftmax


class Contexts(NamedTuple):
    """What the choice asks of contexts, on a device that need not be there."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    shape: torch.Size = torch.Size((70, 12, 280))


CPU, GPU = Contexts(torch.device("cpu")), Contexts(torch.device("cuda"))


def chosen(asked: Any, contexts: Contexts, g: Pointwise) -> str:
    return choose(asked, contexts, g, 15, 10_000)  # type: ignore[arg-type]


class Shifted(Identity):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + 1


@pytest.fixture(autouse=True)
def with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("contexts", "g", "expected"),
    [
        (CPU, Identity(), "chunked"),
        (GPU, Identity(), "triton"),
        (GPU, Sigsoftmax(), "triton"),
        (GPU, GeneralizedSigsoftmax(k=3.0), "triton"),
        (GPU, Plif(knots=4), "triton"),
        (GPU, MonotonicNetwork(units=2), "triton"),
        (GPU._replace(dtype=torch.float64), Identity(), "chunked"),
        (CPU._replace(shape=torch.Size((2, 8))), Identity(), "chunked"),
    ],
)
def test_the_fastest_for_device_dtype_size_and_function(contexts: Contexts, g: Pointwise, expected: str) -> None:
    assert chosen("auto", contexts, g) == expected
    assert chosen("reference", contexts, g) == "reference"
    assert chosen("chunked", contexts, g) == "chunked"


def test_a_handful_of_logits_is_materialised_on_a_cpu() -> None:
    few = torch.zeros(3, 8)
    assert choose("auto", few, Identity(), 2, 100) == "reference"
    assert choose("auto", few, Identity(), 2, 10_000) == "chunked"
    assert choose("auto", Contexts(GPU.device, shape=few.shape), Identity(), 2, 100) == "triton"  # type: ignore[arg-type]


def test_a_subclass_with_another_forward_is_not_taken_for_its_parent() -> None:
    assert chosen("auto", GPU, Shifted()) == "chunked"


@pytest.mark.parametrize(
    ("contexts", "g", "reason"),
    [
        (CPU, Identity(), "needs a GPU"),
        (GPU, Shifted(), "does not know the function Shifted"),
        (GPU._replace(dtype=torch.float64), Identity(), "needs float32 contexts, not float64"),
    ],
)
def test_triton_where_it_cannot_run_is_refused(contexts: Contexts, g: Pointwise, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen("triton", contexts, g)
    assert str(caught.value) == f"recipe.kernel: triton {reason}; use auto or chunked"


def test_without_triton_a_gpu_takes_the_chunked_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert chosen("auto", GPU, Identity()) == "chunked"
    with pytest.raises(InputError, match="is not installed"):
        chosen("triton", GPU, Identity())
