"""Milliseconds of an LSTM stack, forward and backward, by cuDNN and by the suite's kernels, side by side on a GPU.

    python tests/bench/recurrence_gpu.py [--out]

Stacks of AWD-LSTM softmax and of MoS on Penn Treebank, 70 time steps, weights dropped, no other dropout; captured
graphs, replayed in turn, medians. ``own`` is what training takes, on half of the GPU where runs are packed.
The last columns are microseconds of a time step in the suite's two kernels, of the widest layer. With ``--out`` also
results/benchmarks/recurrence.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measured import where
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from suite.models.dropout import locked_dropout
from suite.models.encoders.recurrence import Kernels, lstm_layer, room

OUT = Path("results/benchmarks/recurrence.json")
STACKS = {"awd": ([400, 1150, 1150, 400], 20), "mos": ([280, 960, 960, 620], 12)}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "tf32": torch.float32}
STEPS, ROUNDS = 70, 30


def stack(
    sizes: list[int], batch: int, dtype: torch.dtype, kernels: Kernels | None, crowded: bool = False
) -> Callable[[], None]:
    """What runs the stack forward and backward once."""
    torch.manual_seed(0)
    device = torch.device("cuda", torch.cuda.current_device())
    layers = []
    for inputs, hidden in pairwise(sizes):
        shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
        weights = [torch.empty(s, device=device).uniform_(-(hidden**-0.5), hidden**-0.5) for s in shapes]
        wide = room(hidden, batch, dtype, device, kernels)
        state = torch.zeros(2, 1, wide.batch, wide.features, dtype=dtype, device=device).unbind()
        mask = (torch.rand(shapes[1], device=device) > 0.5).to(torch.uint8)
        layers.append(([w.requires_grad_() for w in weights], state, mask))
    x = torch.randn(STEPS, batch, sizes[0], device=device).requires_grad_()
    leaves = [x, *(w for weights, _, _ in layers for w in weights)]
    wide = room(sizes[-1], batch, dtype, device, kernels)
    out = torch.randn(STEPS, wide.batch, wide.features, device=device).to(dtype)

    def run() -> None:
        y = locked_dropout(x, 0.0, False, room(sizes[0], batch, dtype, device, kernels))
        for weights, state, mask in layers:
            y = lstm_layer(y, *state, weights, mask, 2.0, kernels, crowded)[0]
        torch.autograd.grad(y, leaves, out)

    return run


def captured(run: Callable[[], None], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    for _ in range(2):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph


def milliseconds(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def microseconds_a_step(run: Callable[[], None]) -> dict[str, float]:
    """Of the slowest launch of each of the suite's two kernels."""
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in trace.events():
        if event.name.startswith("lstm_"):
            times[event.name] = max(times.get(event.name, 0.0), event.device_time / STEPS)
    return times


def main() -> None:
    rows: list[dict[str, Any]] = []
    with torch.cuda.stream(torch.cuda.Stream()):
        stream = torch.cuda.current_stream()
        for name, (sizes, batch) in STACKS.items():
            for kind, dtype in DTYPES.items():
                runs = {
                    "cudnn": stack(sizes, batch, dtype, "cudnn"),
                    "own": stack(sizes, batch, dtype, None),
                    "own, half of the GPU": stack(sizes, batch, dtype, None, crowded=True),
                }
                graphs = {label: captured(run, stream) for label, run in runs.items()}
                times: dict[str, list[float]] = {label: [] for label in graphs}
                for _ in range(ROUNDS):
                    for label, graph in graphs.items():
                        times[label].append(milliseconds(graph))
                found = {label: round(statistics.median(values), 3) for label, values in times.items()}
                kernels_of_a_step = {k: round(v, 2) for k, v in sorted(microseconds_a_step(runs["own"]).items())}
                rows.append({"stack": name, "products": kind, **found, **kernels_of_a_step})
    print(torch.cuda.get_device_name(), torch.__version__)
    print(tabulate(rows, headers="keys"))
    if "--out" in sys.argv[1:]:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps({**where(), "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
