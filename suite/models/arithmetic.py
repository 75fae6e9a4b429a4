"""Torch's arithmetic flags: process-wide, so whoever launches work under them holds them for as long as it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from suite.models.turns import TURNS
from suite.spec.recipe import Arithmetic, Precision

# Several runs may share a process; a replayed graph needs no flag, but capture and evaluation do.
_HELD = threading.RLock()


@contextmanager
def arithmetic(recurrence: Arithmetic, head: Arithmetic) -> Iterator[None]:
    """Run the block in the arithmetic given for cuDNN's recurrences and for matrix products.

    Only TF32 or float32 is a flag; half precision is a matter of dtypes, and what is left in float32 beside it may
    then use TF32, which rounds no more than half precision does.
    """
    with TURNS.holding(_HELD):
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = recurrence != "float32"
        torch.backends.cuda.matmul.allow_tf32 = head != "float32"
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def of_evaluation(precision: Precision) -> Arithmetic:
    """The arithmetic of every evaluation of a recipe."""
    if precision.evaluation is not None:
        return precision.evaluation
    return "tf32" if "tf32" in (precision.recurrence, precision.head) else "float32"
