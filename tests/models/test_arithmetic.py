"""Torch's arithmetic flags: given back after a block, and never changed under another run's block."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from suite.models.arithmetic import arithmetic, of_evaluation, set_arithmetic
from suite.spec.recipe import Precision


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    cudnn, matmul = flags()
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


def test_a_block_has_its_flags_and_gives_the_earlier_ones_back() -> None:
    set_arithmetic("float32", "tf32")
    with arithmetic("tf32", "float32"):
        assert flags() == (True, False)
        with arithmetic("float32", "float16"):
            assert flags() == (False, True), "beside half precision the rest may use TF32"
        assert flags() == (True, False)
    assert flags() == (False, True)


def test_another_runs_flags_wait_for_the_end_of_the_block() -> None:
    set_arithmetic("float32", "float32")
    other = threading.Thread(target=set_arithmetic, args=("tf32", "tf32"))
    with arithmetic("float32", "float32"):
        other.start()
        other.join(timeout=0.05)
        assert other.is_alive()
        assert flags() == (False, False)
    other.join(timeout=10)
    assert flags() == (True, True)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ({}, "float32"),
        ({"head": "tf32"}, "tf32"),
        ({"recurrence": "tf32"}, "tf32"),
        ({"recurrence": "float16", "head": "float16"}, "float32"),
        ({"recurrence": "tf32", "evaluation": "float32"}, "float32"),
        ({"recurrence": "float16", "evaluation": "tf32"}, "tf32"),
    ],
)
def test_evaluation_has_an_arithmetic_of_its_own(precision: dict[str, str], expected: str) -> None:
    assert of_evaluation(Precision.model_validate(precision)) == expected
