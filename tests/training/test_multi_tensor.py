"""The GPU's update and weight packing under Triton's interpreter on the CPU, against torch's own operations."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="triton is not installed: pip install triton to run its interpreter on the CPU")

from suite.models.encoders.recurrence_triton import pack_weights, unpack_gradients
from suite.models.encoders.recurrence_weights import Sizes, pack, unpack
from suite.training.averages import RunningAverage
from suite.training.multi_tensor import MultiTensorUpdate

# The last is larger than what one program of a launch takes.
SHAPES = [(30, 7), (5,), (17_000,)]
RATES = [0.5, 0.5, 0.1]
DECAY = 1e-3


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(seed: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in SHAPES]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("clip", "scale"), [(0.25, 8.0), (1e6, 1.0), (None, 1024.0)])
def test_an_update_is_clipped_sgd_and_every_average(clip: float | None, scale: float) -> None:
    ours, theirs = parameters(), parameters()
    mine, expected = ([RunningAverage(p), RunningAverage(p)] for p in (ours, theirs))
    mine[1].updates = expected[1].updates = 3  # one that started earlier
    update = MultiTensorUpdate(ours, RATES, mine, DECAY, clip, scale)
    groups = [{"params": theirs[:2], "lr": RATES[0]}, {"params": theirs[2:], "lr": RATES[2]}]
    sgd = torch.optim.SGD(groups, weight_decay=DECAY)
    for step in range(4):
        factor = 1.0 - 0.2 * step
        scaled = gradients(step, scale)
        update.factor.fill_(factor)
        update(update.addresses(scaled))
        for parameter, gradient in zip(theirs, scaled, strict=True):
            parameter.grad = gradient / scale
        if clip is not None:
            nn.utils.clip_grad_norm_(theirs, clip)
        for group, rate in zip(sgd.param_groups, (RATES[0], RATES[2]), strict=True):
            group["lr"] = rate * factor
        sgd.step()
        for average in expected:
            average.update()
    close([p.detach() for p in ours], [p.detach() for p in theirs])
    for a, b in zip(mine, expected, strict=True):
        close(a.values, b.values)
    assert update.skipped.item() == 0


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad: float) -> None:
    ours = parameters()
    average = RunningAverage(ours)
    update = MultiTensorUpdate(ours, RATES, [average], DECAY, 0.25, 1.0)
    before = [p.detach().clone() for p in ours]
    spoilt = gradients(1, 1.0)
    spoilt[2][16_999] = bad
    for count in (1, 2):
        update(update.addresses(spoilt))
        assert update.skipped.item() == count
    assert all(torch.equal(a, b) for a, b in zip(before, ours, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, average.values, strict=True))
    sound = gradients(1, 1.0)
    update(update.addresses(sound))
    assert update.skipped.item() == 2
    update.settle()
    assert average.updates == 1, "a step that was not taken is no iterate"
    assert all(not torch.equal(a, b) for a, b in zip(before, ours, strict=True))


def test_averages_alone_leave_the_parameters_to_another_optimiser() -> None:
    ours = parameters()
    average, expected = RunningAverage(ours), RunningAverage(ours)
    update = MultiTensorUpdate(ours, RATES, [average], DECAY, 0.25, 1.0, sgd=False)
    nothing = gradients(0, float("nan"))
    for value in (1.0, 2.0, 5.0):
        with torch.no_grad():
            for parameter in ours:
                parameter.add_(value)
        before = [p.detach().clone() for p in ours]
        update(update.addresses(nothing))
        expected.update()
        assert all(torch.equal(a, b) for a, b in zip(before, ours, strict=True))
    close(average.values, expected.values)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(3, dtype=torch.float64),
            "expected contiguous float32 tensors, got torch.float64 with strides (1,)",
        ),
        (torch.zeros(3, 2).t(), "expected contiguous float32 tensors, got torch.float32 with strides (1, 2)"),
    ],
)
def test_what_the_launches_cannot_read_is_refused(tensor: Tensor, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        MultiTensorUpdate.addresses([tensor])
    assert str(caught.value) == message


@pytest.mark.parametrize("sizes", [Sizes(5, 3, 8, 4), Sizes(4, 4, 4, 4), Sizes(1030, 3, 1152, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_packing_and_its_gradient_are_those_of_torch(sizes: Sizes, dtype: torch.dtype, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = 4 * sizes.hidden
    shapes = [(rows, sizes.inputs), (rows, sizes.hidden), (rows,), (rows,)]
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    mask = torch.randint(2, shapes[1], generator=generator, dtype=torch.uint8) if masked else None
    packed = pack_weights(weights, mask, 2.0, sizes, dtype)
    assert torch.equal(packed, pack(weights, mask, 2.0, sizes, dtype))
    gradient = torch.randn(sizes.packed, generator=generator).to(dtype)
    found = unpack_gradients(gradient, mask, 2.0, sizes)
    for a, b in zip(found, unpack(gradient, mask, 2.0, sizes), strict=True):
        assert torch.equal(a, b)
    # One is the transpose of the other: <pack(w), g> = <w, unpack(g)>.
    forward = (packed.double() * gradient.double()).sum()
    backward = sum((w.double() * g.double()).sum() for w, g in zip(weights, found, strict=True))
    assert backward.item() == pytest.approx(forward.item(), rel=1e-2 if dtype == torch.float16 else 1e-5, abs=1e-2)


def test_padding_stays_out_of_the_packed_weights() -> None:
    sizes = Sizes(2, 1, 3, 2)
    weights = [torch.ones(4, 2), torch.ones(4, 1), torch.ones(4), torch.ones(4)]
    of_inputs, recurrent, bias, _ = sizes.views(pack(weights, None, 1.0, sizes, torch.float32))
    assert of_inputs.tolist() == [[1, 1, 0], [0, 0, 0]] * 4
    assert recurrent.tolist() == [[1, 0], [0, 0]] * 4
    assert bias.tolist() == [1, 0] * 4
    ends = [part.storage_offset() for part in sizes.views(torch.zeros(sizes.packed))]
    assert all(a < b for a, b in pairwise(ends))
