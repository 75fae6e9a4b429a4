"""Time of every head, forward and backward, beside the linear softmax in one interleaved run.

``make bench`` prints medians; the ratio to the softmax is in the report's ``extra_info``. As a plain test each body
runs once, so that the benchmarks cannot rot.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from suite.models.heads.head import Head
from suite.spec.components import create

CONTEXTS, SIZE, VOCABULARY = 128, 64, 2000
HEADS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "sigsoftmax": {"name": "softmax", "pointwise": "sigsoftmax"},
    "gss": {"name": "softmax", "pointwise": "gss"},
    "plif": {"name": "softmax", "pointwise": {"name": "plif", "knots": 10_000}},
    "moc-5": {"name": "moc", "experts": 5},
    "mos-5": {"name": "mos", "experts": 5},
    "moss-5": {"name": "mos", "experts": 5, "pointwise": "sigsoftmax"},
}


def step(options: dict[str, Any]) -> Callable[[], None]:
    """One forward and backward pass of a head on fixed random contexts."""
    torch.manual_seed(0)
    head: Head = create("head", options, SIZE, VOCABULARY, None)
    contexts = torch.randn(CONTEXTS, SIZE, requires_grad=True)
    targets = torch.randint(VOCABULARY, (CONTEXTS,))

    def run() -> None:
        head.zero_grad(set_to_none=True)
        head.nll(contexts, targets).mean().backward()

    return run


@pytest.mark.parametrize("name", HEADS)
def test_head(benchmark: BenchmarkFixture, name: str) -> None:
    run, softmax = step(HEADS[name]), step(HEADS["softmax"])
    if benchmark.enabled:
        run(), softmax()
        benchmark.extra_info["ratio_to_softmax"] = statistics.median(_ratio(run, softmax) for _ in range(15))
        benchmark.name = f"{name} ({benchmark.extra_info['ratio_to_softmax']:.2f} x softmax)"
    benchmark(run)


def _ratio(run: Callable[[], None], peer: Callable[[], None]) -> float:
    """Time over the peer's, taken back to back so that what slows the machine slows both."""
    began = time.perf_counter()
    run()
    between = time.perf_counter()
    peer()
    return (between - began) / (time.perf_counter() - between)
