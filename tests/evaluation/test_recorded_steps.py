"""On a GPU: a recorded step is the eager one, replay after replay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import VOCABULARY, stream, text_model
from stage_runs import context_of, run_in_pieces
from torch import Tensor
from torch.nn import functional

from suite.data.base import TextData
from suite.evaluation import replay
from suite.evaluation.cache import Cache
from suite.evaluation.divergence import Divergence
from suite.evaluation.dynamic import DynamicEvaluation
from suite.evaluation.modelstate import differentiable
from suite.evaluation.rank import Rank
from suite.evaluation.replay import Replayed
from suite.evaluation.walk import Walk
from suite.measurement.clock import PhaseClock
from suite.models.encoders.lstm import AwdLstm
from suite.models.heads.head import MixtureOfSoftmaxes
from suite.models.language_model import LanguageModel
from suite.stages import RunContext

pytestmark = pytest.mark.usefixtures("compiled_triton")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def text() -> TextData:
    return TextData({"train": stream(400), "valid": stream(60, seed=1), "test": stream(93, seed=2)}, VOCABULARY, {})


def context(model: LanguageModel, folder: Path, device: torch.device = GPU) -> RunContext:
    at = context_of(model.to(device), text(), folder)
    at.device, at.clock = device, PhaseClock(device)
    return at


def model(kernel: Any = "chunked") -> LanguageModel:
    made = text_model(MixtureOfSoftmaxes, experts=3, eps=1e-3)
    made.head.kernel = kernel
    return made


@pytest.mark.parametrize("device", [CPU, pytest.param(GPU, marks=on_gpu)])
def test_every_call_is_one_step_with_masks_of_its_own(device: torch.device) -> None:
    counted, mask = torch.zeros((), device=device), torch.zeros(1000, device=device)

    def step() -> None:
        counted.add_(1)
        mask.copy_(functional.dropout(torch.ones_like(mask), 0.5))

    repeated = Replayed(step, device)
    seen: list[Tensor] = []
    for calls in range(1, 9):
        repeated()
        assert counted.item() == calls
        seen.append(mask.clone())
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


@on_gpu
@pytest.mark.parametrize("kernel", ["chunked", "reference"])
def test_replays_give_what_eager_steps_and_the_cpu_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    stage = DynamicEvaluation(statistics_batch=6, lr=0.02)
    recorded = stage.run(context(model(kernel), tmp_path), None)
    with monkeypatch.context() as patch:
        patch.setattr(replay, "_WARM_UP", 10**9)
        eager = stage.run(context(model(kernel), tmp_path), None)
    by_cpu = stage.run(context(model(kernel), tmp_path, CPU), None)
    for split in ("valid", "test"):
        assert recorded[split] == pytest.approx(eager[split], rel=1e-10)
        assert recorded[split] == pytest.approx(by_cpu[split], rel=1e-8)


@on_gpu
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("leak", [False, True])
def test_the_full_encoder_in_float32_with_and_without_the_leak(tmp_path: Path, leak: bool) -> None:
    torch.set_default_dtype(torch.float32)

    def run(seed: int) -> Any:
        torch.manual_seed(3)
        encoder = AwdLstm(VOCABULARY, embedding=8, hidden=[16, 8])
        made = LanguageModel(encoder, MixtureOfSoftmaxes(8, VOCABULARY, encoder.output_weight, experts=2))
        made.head.kernel = "chunked"
        stage = DynamicEvaluation(lr=0.02, statistics_batch=6, weight_drop_leak=leak, seed=seed)
        return stage.run(context(made, tmp_path), None)["test"]["nll"]

    assert run(1) == pytest.approx(run(1), rel=1e-4)
    assert (abs(run(1) - run(2)) > 1e-4 * run(1)) == leak


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("kernel", ["chunked", "triton"])
def test_a_step_never_waits_for_the_device(kernel: str) -> None:
    if kernel == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("another module's tests have put Triton into its interpreter, which works on the host")
    torch.set_default_dtype(torch.float32)
    made = model(kernel).to(GPU)
    columns = torch.randint(VOCABULARY, (41, 1), device=GPU)
    parameters = list(made.parameters())
    before = [p.detach().clone() for p in parameters]

    def learn(gradients: list[Tensor]) -> None:
        torch._foreach_addcmul_(list[Tensor](parameters), gradients, before, value=-0.01)

    with differentiable(made, "float32"):
        walk = Walk(made, columns, 5, parameters, learn, scored=True)
        repeated = Replayed(lambda: walk.step(5), GPU)
        walk.advance(5, repeated)  # what is loaded and compiled at first use may wait
        try:
            torch.cuda.set_sync_debug_mode("error")
            for _ in range(2):
                walk.advance(5, repeated)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for _ in range(5):
            walk.advance(5, repeated)
    assert walk.row == 40
    assert walk.mean_nll() > 0


@on_gpu
def test_it_resumes_between_replays(tmp_path: Path) -> None:
    def stage() -> DynamicEvaluation:
        return DynamicEvaluation(statistics_batch=6)

    whole = stage().run(context(model(), tmp_path), None)
    pieces, _, stopped = run_in_pieces(stage, lambda: context(model(), tmp_path), 9)
    assert stopped > 1
    for split in ("valid", "test"):
        assert pieces[split] == pytest.approx(whole[split], rel=1e-10)


@on_gpu
@pytest.mark.parametrize(
    "stage", [Cache(window=9, bptt=20), Rank(eps_trap=True), Divergence(pairs=40)], ids=lambda stage: str(stage.name)
)
def test_the_other_stages_give_what_the_cpu_gives(tmp_path: Path, stage: Any) -> None:
    found = stage.run(context(model(), tmp_path), None)
    expected = stage.run(context(model(), tmp_path, CPU), None)
    for split, values in expected.items():
        assert found[split] == pytest.approx(values, rel=1e-9)
