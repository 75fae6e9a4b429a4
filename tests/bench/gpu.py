"""Time and memory of the head's loss on a GPU, every form beside its peers in one run: ``make bench-gpu``.

Forward and backward from float32 parameters; medians of device-event timings of a replayed CUDA graph on random data;
memory is the allocator's peak above the inputs. Writes results/benchmarks/heads.json and prints the same as a table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional

from suite.kernels import chunked, fused, reference
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import Identity, Sigsoftmax

OUT = Path("results/benchmarks/heads.json")
MIB = 2**20
# name: contexts N, experts K, dimension d, words V
SHAPES = {"ptb": (840, 15, 280, 10_000), "ptb, one softmax": (840, 1, 400, 10_000), "large": (4096, 10, 512, 33_278)}
SHAPES["large, one softmax"] = (4096, 1, 512, 33_278)
Case = tuple[str, str, Callable[[], Tensor]]


def cases(contexts: Tensor, log_prior: Tensor | None, weight: Tensor, bias: Tensor, targets: Tensor) -> list[Case]:
    """(form, arithmetic, loss) of everything that is timed at one shape."""
    plif = Plif().cuda()

    def materialised() -> Tensor:
        return reference.mixture_nll(contexts, log_prior, weight, bias, targets, Identity()).mean()

    def autocast(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return loss()

        return run

    def fast(g: Any, dtype: torch.dtype) -> Callable[[], Tensor]:
        return lambda: fused.mixture_nll(contexts, log_prior, weight, bias, targets, g, dtype=dtype)[0]

    found: list[Case] = [
        ("materialised", "tf32", materialised),
        ("materialised, torch.compile", "tf32", torch.compile(materialised)),
        ("materialised", "bf16", autocast(materialised)),
        ("materialised, torch.compile", "bf16", autocast(torch.compile(materialised))),
        ("one pass, torch", "tf32", lambda: _torch(Identity())),
        ("one pass, torch, PLIF 1e5", "tf32", lambda: _torch(plif)),
    ]

    def _torch(g: Any) -> Tensor:
        return chunked.mixture_nll(contexts, log_prior, weight, bias, targets, g)[0]

    for name, dtype in (("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        found.append(("one pass, Triton", name, fast(Identity(), dtype)))
        found.append(("one pass, Triton, sigsoftmax", name, fast(Sigsoftmax(), dtype)))
    if contexts.shape[1] == 1:

        def linear() -> Tensor:
            return functional.cross_entropy(functional.linear(contexts.squeeze(1), weight, bias).float(), targets)

        found += [("torch cross_entropy", "tf32", linear), ("torch cross_entropy", "bf16", autocast(linear))]
    return found


def measure(loss: Callable[[], Tensor], leaves: list[Tensor]) -> tuple[float, float]:
    """Median milliseconds of a replayed step, and its eager peak above the inputs in MiB."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        torch.autograd.backward(loss())

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    for leaf in leaves:
        leaf.grad = None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / MIB
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    times = []
    for repeat in range(35):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if repeat >= 5:
            times.append(begin.elapsed_time(end))
    return statistics.median(times), peak


def main() -> None:
    """Measure every case at every shape."""
    torch.backends.cuda.matmul.allow_tf32 = True
    rows = []
    for shape, (tokens, experts, size, words) in SHAPES.items():
        torch.manual_seed(0)
        contexts = torch.tanh(torch.randn(tokens, experts, size, device="cuda")).requires_grad_()
        prior = torch.log_softmax(torch.randn(tokens, experts, device="cuda"), -1).requires_grad_()
        weight = (torch.rand(words, size, device="cuda") * 0.2 - 0.1).requires_grad_()
        bias = torch.zeros(words, device="cuda").requires_grad_()
        targets = torch.randint(words, (tokens,), device="cuda")
        log_prior = prior if experts > 1 else None
        leaves = [contexts, prior, weight, bias]
        for form, arithmetic, loss in cases(contexts, log_prior, weight, bias, targets):
            row = {"shape": shape, "N": tokens, "K": experts, "d": size, "V": words, "form": form, "dtype": arithmetic}
            try:
                milliseconds, peak = measure(loss, leaves)
                rows.append({**row, "ms": round(milliseconds, 3), "peak_mib": round(peak, 1)})
            except Exception as error:
                torch.cuda.synchronize()
                rows.append({**row, "failed": str(error).splitlines()[0][:200]})
            print(rows[-1], flush=True)
            torch.cuda.empty_cache()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    where = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    OUT.write_text(json.dumps({**where, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(tabulate(rows, headers="keys"))


if __name__ == "__main__":
    main()
