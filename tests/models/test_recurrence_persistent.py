"""The persistent LSTM kernels, run on the CPU as C++ (kernels/cuda_on_cpu.h), against torch's LSTM in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernels.cuda_on_cpu import Kernel, compiled, needs_compiler
from torch import Tensor

from suite.kernels import cuda_source
from suite.models.encoders import recurrence
from suite.models.encoders.recurrence_persistent import Plan, persistent_layer
from suite.models.encoders.recurrence_weights import Sizes

pytestmark = needs_compiler
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-11}


@pytest.fixture
def on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(source: str, name: str, device: torch.device, **defines: int | str) -> Kernel:
        return compiled(tmp_path, source, ["lstm_forward", "lstm_backward"], **defines)[name]

    monkeypatch.setattr(cuda_source, "kernel", kernel)


def results(dtype: torch.dtype, layout: Plan | None, steps: int, hidden: int, batch: int) -> list[Tensor]:
    """Output, last state and gradients of a layer of 5 inputs, by the kernels or, without a layout, by torch."""
    torch.manual_seed(3)
    shapes = [(4 * hidden, 5), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
    weights = [(torch.randn(shape) * 0.5).to(dtype).float() for shape in shapes]
    x, h, c = (torch.randn(n, batch, width).to(dtype) for n, width in ((steps, 5), (1, hidden), (1, hidden)))
    mask = (torch.rand(shapes[1]) > 0.5).to(torch.uint8)
    out = torch.randn(steps, batch, hidden).to(dtype)
    leaves = [t.requires_grad_() for t in [x, *weights]]
    if layout is None:
        wide = [w.double() for w in leaves[1:]]
        wide[1] = wide[1] * mask * 2.0
        y, last_h, last_c = torch.lstm(
            leaves[0].double(), [h.double(), c.double()], wide, True, 1, 0.0, True, False, False
        )
    else:
        sizes = Sizes(5, hidden, 5, layout.hidden)
        y, last_h, last_c = persistent_layer(leaves[0], h, c, leaves[1:], mask, 2.0, sizes, layout)
    grads = torch.autograd.grad(y, leaves, out.to(y.dtype))
    return [t.detach().double() for t in (y, last_h, last_c, *grads)]


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize(
    ("steps", "hidden", "batch", "units", "warps", "everywhere"),
    [(4, 40, 5, 4, 2, False), (3, 24, 11, 8, 1, True), (2, 14, 1, 4, 2, False), (3, 72, 3, 12, 2, False)],
    ids=["chunks", "tiles", "padded", "groups"],
)
@pytest.mark.usefixtures("on_cpu")
def test_the_kernels_compute_an_lstm_and_its_gradients(
    dtype: torch.dtype,
    steps: int,
    hidden: int,
    batch: int,
    units: int,
    warps: int,
    everywhere: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if everywhere:  # half of the matrix in shared memory
        monkeypatch.setattr(Plan, "resident", property(lambda plan: plan.chunks // 2))
    layout = Plan(dtype, -(-hidden * dtype.itemsize // 16) * 16 // dtype.itemsize, batch, units, warps)
    truth = results(dtype, None, steps, hidden, batch)
    found = results(dtype, layout, steps, hidden, batch)
    again = results(dtype, layout, steps, hidden, batch)
    for name, expected, value, same in zip(("y", "h", "c", "x", "w", "r", "b", "b"), truth, found, again, strict=True):
        assert (value - expected).norm() <= 6 * ROUNDING[dtype] * expected.norm(), name
        assert torch.equal(value, same), name


@pytest.mark.usefixtures("on_cpu")
def test_a_segment_is_evaluated_in_pieces_that_carry_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def layer(x: Tensor, *arguments: object, **options: object) -> tuple[Tensor, Tensor, Tensor]:
        lengths.append(x.shape[0])
        return lstm_layer(x, *arguments, **options)

    lstm_layer = recurrence.lstm_layer
    monkeypatch.setattr(recurrence, "_PIECE", 3)
    monkeypatch.setattr(recurrence, "lstm_layer", layer)

    def layout(hidden: int, batch: int, dtype: torch.dtype, *_: object, **__: object) -> Plan:
        return Plan(dtype, hidden, batch, 4, 2)

    monkeypatch.setattr(recurrence, "own_kernels", layout)
    torch.manual_seed(5)
    weights = list(torch.nn.LSTM(5, 14).parameters())
    x, h, c = torch.randn(8, 2, 5), torch.randn(1, 2, 14), torch.randn(1, 2, 14)
    with torch.no_grad():
        found = recurrence.evaluated_layer(x, h, c, weights)
        whole = torch.lstm(x, [h, c], weights, True, 1, 0.0, False, False, False)
    assert lengths == [3, 3, 2]
    assert found is not None
    for part, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=5e-3, atol=5e-3)


def test_a_layer_that_the_kernels_cannot_run_is_left_to_cudnn() -> None:
    x, h, c = torch.randn(2, 1, 3), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)
    weights = [torch.randn(8, 3), torch.randn(8, 2), torch.randn(8), torch.randn(8)]
    assert recurrence.evaluated_layer(x, h, c, weights) is None
