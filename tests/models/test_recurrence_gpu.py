"""The persistent LSTM kernels on a GPU: as exact as cuDNN, the same in a graph, beside each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from suite.kernels import cuda_source
from suite.models.arithmetic import arithmetic
from suite.models.dropout import locked_dropout
from suite.models.encoders import lstm as stacks
from suite.models.encoders.lstm import AwdLstm
from suite.models.encoders.recurrence import Kernels, lstm_layer, own_kernels, room

pytestmark = [
    pytest.mark.skipif(
        not torch.cuda.is_available() or not cuda_source.available(torch.device("cuda")),
        reason="needs a GPU and cuda.bindings",
    ),
    pytest.mark.usefixtures("compiled_triton"),
    # The layers here own their weights one by one, cuDNN's as well; a run silences it likewise.
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk"),
]
# dtype, inputs, hidden, batch
LAYERS = [
    (torch.float16, 400, 1150, 20),
    (torch.float16, 64, 200, 5),
    (torch.bfloat16, 280, 960, 12),
    (torch.bfloat16, 400, 1150, 32),
    (torch.float32, 280, 960, 12),
    (torch.float32, 960, 620, 12),
    (torch.float32, 400, 1150, 20),
    (torch.float32, 30, 50, 5),
]


def layer(
    dtype: torch.dtype, inputs: int, hidden: int, batch: int, kernels: Kernels | None, steps: int = 23
) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
    """The truth in float64 (output, gradients of input and weights), and what finds the same by ``kernels``."""
    torch.manual_seed(1)
    device = torch.device("cuda", torch.cuda.current_device())
    bound = hidden**-0.5
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
    weights = [torch.empty(s, device=device).uniform_(-bound, bound).requires_grad_() for s in shapes]
    x = torch.randn(steps, batch, inputs, device=device).requires_grad_()
    mask = (torch.rand(4 * hidden, hidden, device=device) > 0.5).to(torch.uint8)
    out = torch.randn(steps, batch, hidden, device=device)
    h, c = torch.randn(2, 1, batch, hidden, device=device).to(dtype).unbind()
    wide = [w.double() for w in weights]
    wide[1] = wide[1] * mask * 2.0
    y = torch.lstm(x.double(), [h.double(), c.double()], wide, True, 1, 0.0, True, False, False)[0]
    truth = [y.detach(), *torch.autograd.grad(y, [x, *weights], out.double())]
    wide = room(hidden, batch, dtype, device, kernels)
    state = [locked_dropout(part, 0.0, False, wide).contiguous() for part in (h, c)]

    def found() -> list[Tensor]:
        entered = locked_dropout(x, 0.0, False, room(inputs, batch, dtype, device, kernels))
        y, last_h, last_c = lstm_layer(entered, *state, weights, mask, 2.0, kernels)
        inside = y[:, :batch, :hidden]
        grads = torch.autograd.grad(inside, [x, *weights], out.to(dtype))
        return [inside.detach(), *grads, *(last[:, :batch, :hidden] for last in (last_h, last_c))]

    return truth, found


def errors(truth: list[Tensor], found: list[Tensor]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, truth, strict=False)]


@pytest.mark.parametrize(("dtype", "inputs", "hidden", "batch"), LAYERS)
def test_the_kernels_are_as_exact_as_cudnn(dtype: torch.dtype, inputs: int, hidden: int, batch: int) -> None:
    allowed = {torch.float16: 2e-4, torch.bfloat16: 1e-3, torch.float32: 1e-4}[dtype]
    truth, own = layer(dtype, inputs, hidden, batch, "own")
    _, cudnn = layer(dtype, inputs, hidden, batch, "cudnn")
    ours, theirs = errors(truth, own()), errors(truth, cudnn())
    for name, mine, other in zip(("y", "x", "input", "recurrent", "bias", "bias"), ours, theirs, strict=True):
        assert mine <= 1.2 * other + allowed, (name, ours, theirs)
    for mine, other in zip(own()[-2:], cudnn()[-2:], strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("dtype", "inputs", "hidden", "batch"), LAYERS[::2])
def test_a_captured_layer_repeats_the_eager_one(dtype: torch.dtype, inputs: int, hidden: int, batch: int) -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        _, found = layer(dtype, inputs, hidden, batch, "own")
        eager = found()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            captured = found()
        for _ in range(30):
            graph.replay()
            assert all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))
    torch.cuda.synchronize()


def test_layers_of_two_streams_do_not_wait_for_each_other() -> None:
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    work = []
    for stream in streams:
        with torch.cuda.stream(stream):
            _, found = layer(torch.float16, 400, 1150, 20, "own", steps=70)
            expected = found()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = found()
            work.append((stream, graph, expected, captured, found))  # what a graph reads must stay
    torch.cuda.synchronize()
    for _ in range(50):
        for stream, graph, *_ in work:
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for _, _, expected, captured, _ in work:
        assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_who_runs_what() -> None:
    device = torch.device("cuda", torch.cuda.current_device())

    def own(dtype: torch.dtype, hidden: int, batch: int = 16) -> bool:
        return own_kernels(hidden, batch, dtype, device) is not None

    assert own(torch.float16, 1024)
    assert own(torch.bfloat16, 640)
    assert not own(torch.bfloat16, 640, batch=40)
    assert not own(torch.float16, 8192), "more than the multiprocessors hold"
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        assert own(torch.float32, 640)
        torch.backends.cudnn.allow_tf32 = False
        assert not own(torch.float32, 640)
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("batch", "steps"), [(10, 1000), (1, 70)])
def test_evaluation_takes_the_kernels_and_says_what_cudnn_says(
    batch: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    device = torch.device("cuda", torch.cuda.current_device())
    model = AwdLstm(1000, embedding=280, hidden=[960, 620]).to(device).eval()
    words = torch.randint(1000, (steps, batch), device=device)
    with torch.no_grad(), arithmetic("tf32", "tf32"):
        ours = model(words, model.initial_state(batch, device))
        repeated = model(words, model.initial_state(batch, device))
        monkeypatch.setattr(stacks, "evaluated_layer", lambda *_: None)
        theirs = model(words, model.initial_state(batch, device))
    with torch.no_grad(), arithmetic("float32", "float32"):
        truth = model(words, model.initial_state(batch, device))
    assert torch.equal(ours.output, repeated.output)
    mine, other = (float((found.output - truth.output).norm() / truth.output.norm()) for found in (ours, theirs))
    assert 0 < mine <= 1.2 * other + 1e-4, "0: the kernels did not run, whose arithmetic is TF32"
    for found, expected in zip(ours.state, truth.state, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
