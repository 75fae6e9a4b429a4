"""Time of every head's loss, forward and backward, in one interleaved run beside its materialised form and a softmax.

Scoring, which makes no gradient, stands beside that step and beside log-probabilities of every word.

``make bench`` prints the medians; the ratios are in the names and in the report's ``extra_info``. As a plain test each
body runs once, so that the benchmarks cannot rot, and one test gates on a ratio taken in the same process.
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

# contexts, their size, words
SHAPES = {"small": (60, 64, 500), "medium": (128, 64, 2000)}
HEADS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "sigsoftmax": {"name": "softmax", "pointwise": "sigsoftmax"},
    "gss": {"name": "softmax", "pointwise": "gss"},
    "plif": {"name": "softmax", "pointwise": {"name": "plif", "knots": 10_000}},
    "moc-5": {"name": "moc", "experts": 5},
    "mos-5": {"name": "mos", "experts": 5},
    "moss-5": {"name": "mos", "experts": 5, "pointwise": "sigsoftmax"},
    "mixture-of-plif-5": {"name": "mos", "experts": 5, "pointwise": {"name": "plif", "knots": 10_000}},
}
ROUNDS = 15
# Wide: a shared machine, and a gate that must fail only where something has really become slow.
GATE = 2.5


def step(options: dict[str, Any], shape: str, kernel: str = "auto") -> Callable[[], None]:
    """One forward and backward pass of a head on fixed random contexts."""
    torch.manual_seed(0)
    tokens, size, words = SHAPES[shape]
    head: Head = create("head", options, size, words, None)
    head.kernel = kernel  # type: ignore[assignment]
    contexts = torch.randn(tokens, size, requires_grad=True)
    targets = torch.randint(words, (tokens,))

    def run() -> None:
        head.zero_grad(set_to_none=True)
        head.loss(contexts, targets)[0].backward()

    return run


def scoring(options: dict[str, Any], shape: str, everything: bool = False) -> Callable[[], None]:
    """The losses of a head on fixed random contexts without gradients, or the log-probabilities of every word."""
    torch.manual_seed(0)
    tokens, size, words = SHAPES[shape]
    head: Head = create("head", options, size, words, None).eval()
    contexts, targets = torch.randn(tokens, size), torch.randint(words, (tokens,))

    def run() -> None:
        with torch.no_grad():
            if everything:
                head.log_probs(contexts).gather(1, targets[:, None])
            else:
                head.nll(contexts, targets)

    return run


def ratios(run: Callable[[], None], *peers: Callable[[], None]) -> list[float]:
    """Median time of ``run`` over each peer's, all taken in turn so that what slows the machine slows all."""
    times: list[list[float]] = [[] for _ in range(1 + len(peers))]
    for repeat in range(ROUNDS + 2):
        for form, taken in zip((run, *peers), times, strict=True):
            began = time.perf_counter()
            form()
            if repeat >= 2:
                taken.append(time.perf_counter() - began)
    own, *others = (statistics.median(taken) for taken in times)
    return [own / other for other in others]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", HEADS)
def test_head(benchmark: BenchmarkFixture, name: str, shape: str) -> None:
    run = step(HEADS[name], shape)
    if benchmark.enabled:
        peers = step(HEADS[name], shape, "reference"), step(HEADS["softmax"], shape)
        to_materialised, to_softmax = ratios(run, *peers)
        benchmark.extra_info |= {"ratio_to_materialised": to_materialised, "ratio_to_softmax": to_softmax}
        benchmark.name = f"{name}, {shape} ({to_materialised:.2f} x materialised, {to_softmax:.2f} x softmax)"
    benchmark(run)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", HEADS)
def test_scoring(benchmark: BenchmarkFixture, name: str, shape: str) -> None:
    run = scoring(HEADS[name], shape)
    if benchmark.enabled:
        peers = scoring(HEADS[name], shape, everything=True), step(HEADS[name], shape)
        to_materialised, to_step = ratios(run, *peers)
        benchmark.extra_info |= {"ratio_to_materialised": to_materialised, "ratio_to_step": to_step}
        benchmark.name = f"scoring {name}, {shape} ({to_materialised:.2f} x materialised, {to_step:.2f} x its step)"
    benchmark(run)


@pytest.mark.parametrize("name", ["softmax", "mos-5", "moss-5"])
def test_the_one_pass_loss_is_not_much_slower_than_the_materialised_form(name: str) -> None:
    (found,) = ratios(step(HEADS[name], "medium", "chunked"), step(HEADS[name], "medium", "reference"))
    assert found <= GATE
