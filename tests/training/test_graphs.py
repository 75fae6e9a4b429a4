"""The captured step on a GPU: the eager one's results, masks that change, nothing that a capture leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from suite.data.base import TextData
from suite.models.dropout import locked_dropout
from suite.models.encoders.recurrence import Kernels, lstm_layer, room
from suite.models.heads.head import Head
from suite.models.language_model import LanguageModel
from suite.spec.components import create
from suite.spec.recipe import Recipe
from suite.training.averages import Averages
from suite.training.objectives import NextWord, Work
from suite.training.step import EagerStep

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("compiled_triton"),
    # The layers here own their weights one by one; a run silences it likewise.
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk"),
]

WORDS, BATCH = 60, 6
LENGTHS = [9, 12, 9, 5, 12, 9, 7, 12]


@pytest.fixture(autouse=True)
def own_stream() -> Iterator[None]:
    with torch.cuda.stream(torch.cuda.Stream()):
        yield
    torch.cuda.synchronize()


def built(kind: str, recipe: dict[str, Any], averages_from: int | None = None) -> EagerStep:
    """A step on a small AWD-LSTM with every dropout, the same weights and generator each time."""
    torch.manual_seed(0)
    stream = np.random.default_rng(0).integers(WORDS, size=BATCH * 200).astype(np.int32)
    data = TextData({"train": stream, "valid": stream, "test": stream}, WORDS, {})
    averaging = {"trigger": "epoch", "epoch": averages_from} if averages_from else None
    made = Recipe.model_validate({"batch_size": BATCH, "clip": 0.25, "averaging": averaging, **recipe})
    encoder = create("encoder", {"name": "awd-lstm", "embedding": 20, "hidden": [30, 20]}, WORDS, None)
    head: Head = create(
        "head", {"name": "mos", "experts": 3, "latent_dropout": 0.2}, encoder.context_size, WORDS, encoder.output_weight
    )
    encoder.arithmetic, head.arithmetic = made.precision.recurrence, made.precision.head
    model = LanguageModel(encoder, head).cuda().train()
    device = torch.device("cuda", torch.cuda.current_device())
    objective = NextWord(data, made, 0, device)
    averages = Averages(list(model.parameters()), made)
    averages.begin_epoch(1)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    generator = torch.Generator(device).manual_seed(7)
    if kind == "eager":
        step = EagerStep(model, objective, made, averages, nats, generator)
    else:
        from suite.training.graphs import GraphStep

        step = GraphStep(model, objective, made, averages, nats, generator)
    objective.prepare(model)
    return step


def trained(step: EagerStep, lengths: list[int], factor: float = 1.0) -> list[float]:
    """Nats after each step."""
    found, start = [], 0
    for length in lengths:
        step(Work(start, length, 1.0, length * BATCH), factor * length / 12)
        found.append(step.nats.item())
        start += length
    return found


SGD = {"optimizer": {"name": "sgd", "lr": 5.0, "weight_decay": 1e-4}}
ADAMW = {"optimizer": {"name": "adamw", "lr": 0.01}}
HALF = {"precision": {"recurrence": "float16", "head": "float16"}}
REGULARISED = {"activation_regularization": 2.0, "temporal_regularization": 1.0}


@pytest.mark.parametrize("averages", [None, 1])
@pytest.mark.parametrize(
    "recipe",
    [SGD, {**SGD, **REGULARISED, "micro_batch": 3}, ADAMW, {**SGD, **HALF}, {**SGD, "pointwise_lr": 0.1}],
    ids=["sgd", "micro-batches", "adamw", "half", "rates"],
)
def test_a_replayed_step_computes_what_the_eager_one_does(recipe: dict[str, Any], averages: int | None) -> None:
    eager, graph = built("eager", recipe, averages), built("graph", recipe, averages)
    slow, fast = trained(eager, LENGTHS), trained(graph, LENGTHS)
    assert fast == pytest.approx(slow, rel=2e-3 if "precision" in recipe else 1e-5)
    for a, b in zip(eager.parameters, graph.parameters, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-2, atol=2e-3 if "precision" in recipe else 2e-5)
    graph.settle()
    if averages:
        (one,), (other,) = eager.averages.active.values(), graph.averages.active.values()
        assert one.updates == other.updates == len(LENGTHS)
        for a, b in zip(one.values, other.values, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-2, atol=2e-3 if "precision" in recipe else 2e-5)
    for a, b in zip(eager.objective.carried(), graph.objective.carried(), strict=True):
        torch.testing.assert_close(b.float(), a.float(), rtol=1e-2, atol=2e-3)


def test_replays_draw_new_masks() -> None:
    step = built("graph", SGD)
    nats = [0.0]
    for _ in range(4):
        nats += trained(step, [9], factor=0.0)
        for part in step.objective.carried():
            part.zero_()
    losses = np.diff(nats)
    assert len(set(losses.round(6))) == 4, "the same text, weights and state: only the masks can differ"


def test_when_a_length_is_captured_changes_nothing() -> None:
    late, early = built("graph", SGD), built("graph", SGD)
    for length in sorted(set(LENGTHS)):
        early._graphs[length] = early._captured(length)
    assert trained(late, LENGTHS) == trained(early, LENGTHS)
    for a, b in zip(late.parameters, early.parameters, strict=True):
        assert torch.equal(a, b)


def test_an_average_may_start_between_steps() -> None:
    eager, graph = built("eager", SGD, 2), built("graph", SGD, 2)
    for step in (eager, graph):
        trained(step, LENGTHS[:3])
        step.settle()
        step.averages.begin_epoch(2)
        step.averages_changed()
        trained(step, LENGTHS[3:])
    (one,), (other,) = eager.averages.active.values(), graph.averages.active.values()
    for a, b in zip(one.values, other.values, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=2e-5)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    step = built("graph", {**SGD, "precision": {"recurrence": "float16", "loss_scale": 1e30}})
    before = [p.detach().clone() for p in step.parameters]
    trained(step, [9, 9])
    step.settle()
    assert step.skipped == 2
    assert all(torch.equal(a, b) for a, b in zip(before, step.parameters, strict=True))


def layer(
    dtype: torch.dtype, inputs: int, hidden: int, batch: int, kernels: Kernels | None = None
) -> list[torch.Tensor]:
    """Output and gradients of one layer in ``dtype``."""
    torch.manual_seed(1)
    device = torch.device("cuda", torch.cuda.current_device())
    bound = hidden**-0.5
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
    weights = [torch.empty(s, device=device).uniform_(-bound, bound).requires_grad_() for s in shapes]
    x = torch.randn(11, batch, inputs, device=device).requires_grad_()
    mask = (torch.rand(4 * hidden, hidden, device=device) > 0.5).to(torch.uint8)
    out = torch.randn(11, batch, hidden, device=device)
    if dtype == torch.float64:
        wide = [w.double() for w in weights]
        state = torch.zeros(2, 1, batch, hidden, device=device, dtype=dtype).unbind()
        wide[1] = wide[1] * mask * 2.0
        y = torch.lstm(x.double(), list(state), wide, True, 1, 0.0, True, False, False)[0]
    else:
        wide = room(hidden, batch, dtype, device, kernels)
        state = torch.zeros(2, 1, wide.batch, wide.features, device=device, dtype=dtype).unbind()
        entered = locked_dropout(x, 0.0, False, room(inputs, batch, dtype, device, kernels))
        y = lstm_layer(entered, *state, weights, mask, 2.0, kernels)[0]
        assert (y[:, :, hidden:] == 0).all(), "padded units stay zero"
        y = y[:, :batch, :hidden]
    grads = torch.autograd.grad((y.double() * out.double()).sum(), [x, *weights])
    return [y.detach().double(), *(g.double() for g in grads)]


@pytest.mark.parametrize(("inputs", "hidden", "batch"), [(280, 960, 12), (30, 50, 5), (960, 620, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_layer_is_as_exact_as_its_arithmetic(dtype: torch.dtype, inputs: int, hidden: int, batch: int) -> None:
    truth, found = layer(torch.float64, inputs, hidden, batch), layer(dtype, inputs, hidden, batch)
    bound = {torch.float32: 2e-3, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]  # TF32 is cuDNN's default
    for expected, value in zip(truth, found, strict=True):
        assert (value - expected).norm() / expected.norm() < bound


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # of torch 2.11, though there is one cycle
@pytest.mark.parametrize("sizes", [(280, 960), (960, 960), (960, 620)])
@pytest.mark.parametrize(("kernels", "kernel"), [("cudnn", "persist"), (None, "lstm_backward")])
def test_float16_takes_persistent_kernels(sizes: tuple[int, int], kernels: Kernels | None, kernel: str) -> None:
    layer(torch.float16, *sizes, 12, kernels)
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        layer(torch.float16, *sizes, 12, kernels)
        torch.cuda.synchronize()
    names = {event.key for event in trace.key_averages()}
    assert any(kernel in name.lower() for name in names), sorted(names)
