"""The training step at full size on a GPU, every recipe in one run: ``make bench-train``.

Each case trains its recipe from a task file for one epoch, which captures its graphs, and is then timed over a second
one; validation is timed apart. Memory is NVML's peak of this process over both, and the allocator's. Cases packed on
one GPU run their second epochs side by side. Needs the corpora (SUITE_DATA). Writes results/benchmarks/training.json.

    python tests/bench/training.py [CASE ...]      all cases, or those whose names contain one of the words
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from measured import where
from tabulate import tabulate

from suite.attempt import Attempt, RunOptions
from suite.data.base import DataAccess
from suite.measurement.memory import MemoryMeter
from suite.measurement.nvml import Nvml
from suite.progress import Progress
from suite.records.store import Store
from suite.runner import Runner
from suite.spec.plan import expand, load_tasks, select
from suite.spec.run_spec import RunSpec
from suite.training.loop import Trainer

OUT = Path("results/benchmarks/training.json")
DEVICE = torch.device("cuda", 0)
BEGAN = time.perf_counter()

# name: task, head label, arithmetic of recurrence and head, runs at once
CASES: dict[str, tuple[str, str, tuple[str, str], int]] = {
    "MoS-15, PTB, batch 12": ("yang2018-ptb", "mos-15", ("float16", "float16"), 1),
    "MoS-15, PTB, batch 12, TF32": ("yang2018-ptb", "mos-15", ("tf32", "tf32"), 1),
    "MoS-15, PTB, batch 12, bfloat16": ("yang2018-ptb", "mos-15", ("bfloat16", "bfloat16"), 1),
    "softmax, PTB, batch 20": ("parthiban2021-ptb", "softmax", ("float16", "float16"), 1),
    "sigsoftmax, PTB, batch 20": ("parthiban2021-ptb", "sigsoftmax", ("float16", "float16"), 1),
    "PLIF, PTB, batch 20": ("parthiban2021-ptb", "plif", ("float16", "float16"), 1),
    "MoS-15, WikiText-2, batch 15": ("yang2018-wikitext-2", "mos-15", ("float16", "float16"), 1),
    "MoS-15, PTB, batch 12, four packed": ("yang2018-ptb", "mos-15", ("float16", "float16"), 4),
    "softmax, PTB, batch 20, four packed": ("parthiban2021-ptb", "softmax", ("float16", "float16"), 4),
}


def cell(task: str, head: str, arithmetic: tuple[str, str]) -> RunSpec:
    """The first cell of a task with a head, in other arithmetic and without micro-batches, which memory asks for."""
    spec = select([s for t in load_tasks([task]) for s in expand(t)], only=[f"head={head}"])[0]
    recurrence, of_head = arithmetic
    precision = {"recurrence": recurrence, "head": of_head, "evaluation": "tf32"}
    return replace(spec, recipe={**spec.recipe, "precision": precision, "micro_batch": None})


class Case:
    """One recipe, ready to train."""

    def __init__(self, spec: RunSpec, scratch: Path, packed: bool) -> None:
        options = RunOptions(Store(scratch), DEVICE, DataAccess(), Progress(), packed=packed)
        self.attempt = Attempt(spec, options, Runner(options).load(spec))
        with self.attempt.own_stream():
            self.trainer = Trainer(self.attempt.prepare())

    def epoch(self) -> tuple[int, float]:
        """Steps and seconds of an epoch of training, from its first step to the device's last."""
        trainer, steps = self.trainer, 0
        with self.attempt.own_stream():
            trainer.begin()
            torch.cuda.current_stream().synchronize()
            began = time.perf_counter()
            while trainer.advance():
                steps += 1
            torch.cuda.current_stream().synchronize()
            return steps, time.perf_counter() - began

    def validation(self) -> float:
        """Seconds of a validation."""
        with self.attempt.own_stream():
            self.trainer.validation.score_only({})
            torch.cuda.synchronize()
            began = time.perf_counter()
            self.trainer.validation.score_only({})
            torch.cuda.synchronize()
            return time.perf_counter() - began


def measure(name: str) -> dict[str, Any]:
    """One row."""
    task, head, arithmetic, packed = CASES[name]
    gc.collect()
    torch.cuda.empty_cache()
    meter = MemoryMeter(DEVICE, Nvml.open(DEVICE))
    meter.start()
    with tempfile.TemporaryDirectory() as scratch:
        cases = [Case(cell(task, head, arithmetic), Path(scratch), packed > 1) for _ in range(packed)]
        for case in cases:
            case.epoch()
        found: list[tuple[int, float]] = []
        began = time.perf_counter()
        threads = [threading.Thread(target=lambda c=case: found.append(c.epoch())) for case in cases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        steps = sum(count for count, _ in found)
        meter.stop()
        row = {
            "case": name,
            "task": task,
            "head": head,
            "precision": "/".join(dict.fromkeys(arithmetic)),
            "packed": packed,
        }
        row["recorded"] = datetime.now(UTC).isoformat(timespec="seconds")
        row |= {"steps": steps, "ms_per_step": round(1e3 * seconds / steps, 3)}
        row["seconds_per_epoch"] = round(seconds / packed, 3)
        row["validation_seconds"] = round(cases[0].validation(), 3)
        peaks = meter.read()
        if packed == 1:
            row |= {k: round(v) for k, v in peaks.items() if k in ("gpu_peak_mib", "allocator_peak_mib")}
    return row


def kept(here: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the file that were measured on such a machine, each with the commit it was measured at."""
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    if any(found.get(name) != here[name] for name in ("device", "torch")):
        return []
    return [{"commit": found["commit"], **row} for row in found["rows"]]


def main() -> int:
    """Measure every case that was asked for; the rows of others stay."""
    wanted = sys.argv[1:]
    rows: list[dict[str, Any]] = []
    here = where()
    before = {row["case"]: row for row in kept(here)}
    for name in CASES:
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            rows.append(measure(name))
        except Exception as failure:
            rows.append({"case": name, "failed": f"{type(failure).__name__}: {failure}".splitlines()[0][:300]})
        print(f"[{time.perf_counter() - BEGAN:6.1f} s] {rows[-1]}", flush=True)
        # After every case: what was measured outlives a run that is cut short.
        now = before | {row["case"]: row for row in rows}
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(
            json.dumps({**here, "rows": [now[c] for c in CASES if c in now]}, indent=1) + "\n", encoding="utf-8"
        )
    print(tabulate(rows, headers="keys"))
    return int(any("failed" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
