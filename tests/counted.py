"""What work takes, counted: the same on every machine, which no clock is."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable


def calls_of(work: Callable[[], object]) -> int:
    """Function calls that some work makes, those into C left out."""
    calls = itertools.count()
    # A collection falls where it falls, and others hang functions on it.
    gc.disable()
    sys.setprofile(lambda _frame, event, _argument: next(calls) if event == "call" else None)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return next(calls)
