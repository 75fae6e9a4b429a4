"""Time and memory of the head's loss on a GPU, every form beside its peers in one run: ``make bench-gpu``.

Forward and backward from float32 parameters on random data. Every form of a shape is captured in a CUDA graph; then
all are replayed in turn, round after round, and each gets the median of its device-event timings. Memory is the
allocator's peak of an eager step above the inputs. Writes results/benchmarks/heads.json, from which README's table of
costs is made, and prints the same.

    python tests/bench/gpu.py --check      errors against the float64 truth, nothing else (30 s)
    python tests/bench/gpu.py              errors, then times (two to three minutes; --skip-check: times alone)
    python tests/bench/gpu.py --sweep      the kernels' constants and chunk sizes, printed
    python tests/bench/gpu.py --profile    time by kernel of a step, printed
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_cases import SHAPES, Case, Inputs, cases, sweeps
from gpu_check import check
from measured import where
from tabulate import tabulate

OUT = Path("results/benchmarks/heads.json")
MIB = 2**20
ROUNDS = 25
BEGAN = time.perf_counter()


class Ready(NamedTuple):
    """A form that has been captured, with the peak of its eager step."""

    row: dict[str, Any]
    case: Case  # a graph reads the tensors that it holds
    replay: Callable[[], None]
    graph: torch.cuda.CUDAGraph | None


def say(text: str) -> None:
    """A line of progress with the seconds since the start."""
    print(f"[{time.perf_counter() - BEGAN:6.1f} s] {text}", flush=True)


def prepare(case: Case, row: dict[str, Any]) -> Ready:
    """Warm up, take the eager peak, and capture a graph where the case is one that may be captured."""
    torch.backends.cuda.matmul.allow_tf32 = case.arithmetic == "tf32"
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            case.step()
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    case.step()
    torch.cuda.synchronize()
    row["peak_mib"] = round((torch.cuda.max_memory_allocated() - before) / MIB, 1)
    if not case.capture:
        row["timing"] = "eager"
        return Ready(row, case, case.step, None)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.step()
    row["timing"] = "graph"
    return Ready(row, case, graph.replay, graph)


def timed(ready: list[Ready], rounds: int = ROUNDS) -> None:
    """Replay every form in turn, round after round; the medians go into the rows."""
    times: list[list[float]] = [[] for _ in ready]
    for repeat in range(rounds + 2):
        for form, taken in zip(ready, times, strict=True):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            form.replay()
            end.record()
            torch.cuda.synchronize()
            if repeat >= 2:
                taken.append(begin.elapsed_time(end))
    for form, taken in zip(ready, times, strict=True):
        form.row["ms"] = round(statistics.median(taken), 4)


def measured(
    shape: str, found: Iterable[Case], inputs: Inputs, rounds: int = ROUNDS, quiet: bool = False
) -> list[dict[str, Any]]:
    """One row a case; a case that fails says why and the rest goes on."""
    rows, ready = [], []
    for case in found:
        row = {"shape": shape, **inputs.sizes(), "form": case.form, "dtype": case.arithmetic}
        rows.append(row)
        try:
            ready.append(prepare(case, row))
        except Exception as failure:
            row["failed"] = f"{type(failure).__name__}: {failure}".splitlines()[0][:300]
            say(f"{shape}: {case.form} ({case.arithmetic}) failed: {row['failed']}")
            torch.cuda.synchronize()
        else:
            if not quiet:
                say(f"{shape}: {case.form} ({case.arithmetic}) ready, {row['peak_mib']} MiB")
    timed(ready, rounds)
    for form in ready:
        if form.graph is not None:
            form.graph.reset()
    ready.clear()
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def benchmark(chosen: list[str]) -> list[dict[str, Any]]:
    """Every form at every shape."""
    rows = []
    for shape in chosen:
        inputs = Inputs.random(*SHAPES[shape])
        rows += measured(shape, cases(shape, inputs), inputs, 5 if shape == "1b-word" else ROUNDS)
        del inputs
    return rows


def sweep(chosen: list[str]) -> None:
    """Constants of the kernels and sizes of chunks: what the defaults were taken from."""
    for title, inputs, found in sweeps():
        if not chosen or any(word in title for word in chosen):
            rows = measured(title, found, inputs, 10, quiet=True)
            say(title)
            shown = [{k: row.get(k) for k in ("form", "ms", "peak_mib", "failed") if k in row} for row in rows]
            print(tabulate(shown, headers="keys", tablefmt="plain"), flush=True)


def profile(chosen: list[str]) -> None:
    """GPU time of a step by kernel."""
    for shape in chosen:
        inputs = Inputs.random(*SHAPES[shape])
        for case in cases(shape, inputs):
            if case.form not in ("one pass", "one pass, Sigsoftmax", "one pass, Plif"):
                continue
            torch.backends.cuda.matmul.allow_tf32 = case.arithmetic == "tf32"
            for _ in range(3):
                case.step()
            torch.cuda.synchronize()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
                case.step()
                torch.cuda.synchronize()
            say(f"{shape}, {case.form}, {case.arithmetic}")
            for kernel in sorted(seen.key_averages(), key=lambda k: -k.self_device_time_total)[:11]:
                print(f"{kernel.self_device_time_total:9.1f} us {kernel.count:4d} x {kernel.key[:88]}", flush=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    for what in ("--check", "--skip-check", "--profile"):
        parser.add_argument(what, action="store_true")
    parser.add_argument("--sweep", nargs="*", metavar="WORD", help="only sweeps with one of the words in their title")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    options = parser.parse_args()
    if options.sweep is not None:
        sweep(options.sweep)
        return 0
    if options.profile:
        profile(options.shapes if len(options.shapes) < len(SHAPES) else ["ptb"])
        return 0
    right = options.skip_check or check()
    say("checked")
    if options.check:
        return 0 if right else 1
    rows = benchmark(options.shapes)
    if len(options.shapes) == len(SHAPES) or options.out != OUT:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**where(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    columns = ("shape", "form", "dtype", "ms", "peak_mib", "timing", "failed")
    print(tabulate([[row.get(name) for name in columns] for row in rows], headers=columns, tablefmt="plain"))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
