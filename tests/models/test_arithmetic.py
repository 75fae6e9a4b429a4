"""Torch's arithmetic flags: given back after a block, and never changed under another run's block."""

from __future__ import annotations

import threading

import pytest
import torch

from suite.models.arithmetic import arithmetic, of_evaluation
from suite.spec.recipe import Precision


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_a_block_has_its_flags_and_gives_the_earlier_ones_back() -> None:
    before = flags()
    with arithmetic("tf32", "float32"):
        assert flags() == (True, False)
        with arithmetic("float32", "float16"):
            assert flags() == (False, True), "beside half precision the rest may use TF32"
        assert flags() == (True, False)
    assert flags() == before


def test_another_runs_flags_wait_for_the_end_of_the_block() -> None:
    seen: list[tuple[bool, bool]] = []

    def another() -> None:
        with arithmetic("tf32", "tf32"):
            seen.append(flags())

    other = threading.Thread(target=another)
    with arithmetic("float32", "float32"):
        other.start()
        other.join(timeout=0.05)
        assert seen == []
        assert flags() == (False, False)
    other.join(timeout=10)
    assert seen == [(True, True)]


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
