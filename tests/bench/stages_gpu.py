"""Seconds of the evaluation stages on a GPU: AWD-LSTM-MoS-15 of Penn Treebank's size, random weights and words.

    python tests/bench/stages_gpu.py [perplexity dynamic-evaluation cache rank divergence]

Writes results/benchmarks/stages.json and prints the same. Neither weights nor words change how long a stage takes.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import where
from torch.profiler import ProfilerActivity, profile

from suite.data.base import TextData
from suite.evaluation.perplexity import perplexity
from suite.measurement.clock import PhaseClock
from suite.models.arithmetic import arithmetic
from suite.models.encoders.lstm import AwdLstm
from suite.models.heads.head import MixtureOfSoftmaxes
from suite.models.language_model import LanguageModel
from suite.progress import Progress
from suite.spec.components import create
from suite.spec.recipe import Recipe
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec
from suite.stages import RunContext

OUT = Path("results/benchmarks/stages.json")
WORDS = 10_000
TOKENS = {"train": 929_589, "valid": 73_760, "test": 82_430}
OPTIONS: dict[str, dict[str, Any]] = {name: {"splits": ["test"]} for name in ("dynamic-evaluation", "cache", "rank")}
OPTIONS["divergence"] = {"splits": ["test"]}


def context(model: LanguageModel, data: TextData, folder: Path) -> RunContext:
    part, device = ComponentSpec("bench"), torch.device("cuda")
    spec = RunSpec("bench", 1, part, part, part, {}, (), seed=1, scope="smoke", labels=Labels("ptb", "awd", "mos-15"))
    return RunContext(
        spec=spec,
        recipe=Recipe(),
        data=data,
        device=device,
        model=model.to(device),
        folder=folder,
        clock=PhaseClock(device),
        emit=lambda *_, **__: None,
        progress=Progress(sys.stdout if sys.stdout.isatty() else io.StringIO()),
        stop=lambda: None,
        save=lambda _: None,
        checkpoint_seconds=1e9,
    )


def scored(model: LanguageModel, data: TextData) -> list[dict[str, Any]]:
    """Seconds of a validation pass and of a test pass in TF32 as training takes them, each the second of its kind.

    The profile of a third goes to stderr: what the GPU does, and what the host does.
    """
    device = torch.device("cuda")
    rows = []
    for split, batch, bptt in (("valid", 10, 70), ("valid", 10, 1000), ("test", 1, 70), ("test", 1, 1000)):

        def score(split: Any = split, batch: int = batch, bptt: int = bptt) -> float:
            before = time.perf_counter()
            perplexity(model, data.streams[split], batch, bptt, device)
            torch.cuda.synchronize()
            return time.perf_counter() - before

        with arithmetic("tf32", "tf32"):
            score()
            torch.cuda.reset_peak_memory_stats()
            seconds = score()
            peak = round(torch.cuda.max_memory_allocated() / 2**20)
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
                score()
        for order in ("self_cuda_time_total", "self_cpu_time_total"):
            table = trace.key_averages().table(sort_by=order, row_limit=14, max_name_column_width=60)
            print(f"{split}, batch {batch}, segments of {bptt}\n{table}", file=sys.stderr)
        stage = f"perplexity: {split}, batch {batch}, segments of {bptt}"
        rows.append({"stage": stage, "seconds": round(seconds, 3), "allocator_peak_mib": peak})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main(names: list[str]) -> None:
    """Time each named stage once, on a model of its own."""
    random = np.random.default_rng(0)
    streams = {split: random.integers(0, WORDS, count).astype(np.int32) for split, count in TOKENS.items()}
    data = TextData(streams, WORDS, {})  # type: ignore[arg-type]
    rows = []
    for name in names or ["perplexity", *OPTIONS]:
        torch.manual_seed(0)
        encoder = AwdLstm(WORDS, embedding=280, hidden=[960, 960, 620], tied=True)
        model = LanguageModel(encoder, MixtureOfSoftmaxes(620, WORDS, encoder.output_weight, experts=15, eps=1e-8))
        if name == "perplexity":
            rows += scored(model.to("cuda"), data)
            continue
        torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder:
            at = context(model, data, Path(folder))
            before = time.perf_counter()
            scores = create("stage", {"name": name, **OPTIONS.get(name, {})}).run(at, None)
            torch.cuda.synchronize()
        row = {
            "stage": name,
            "seconds": round(time.perf_counter() - before, 2),
            "allocator_peak_mib": round(torch.cuda.max_memory_allocated() / 2**20),
            "scores": scores,
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({**where(), "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
