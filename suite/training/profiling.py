"""Where a training step's time goes: masks, recurrence, head, backward, update, and what the device waits."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from suite.stages import RunContext
from suite.training.loop import Trainer

# The ranges that the step marks. What they nest in each other counts for the inner one.
PARTS = ("masks", "recurrence", "head", "backward", "update")


class Share(NamedTuple):
    """One part of a step: its name and its milliseconds a step."""

    part: str
    milliseconds: float


class Profile(NamedTuple):
    """``shares`` add up to ``step_milliseconds``, the time of a step as training takes it; ``trace`` is its trace."""

    shares: list[Share]
    step_milliseconds: float
    trace: Path


def profile_steps(context: RunContext, steps: int, folder: Path) -> Profile:
    """Time the parts of a training step over ``steps`` steps of the run's recipe, all of its ``bptt`` words.

    On a GPU the parts come from the kernels of eager steps, each counted for the range it was launched in; the step's
    own time and what it waits for come from the replayed form of the same kernels. On a CPU each part is
    its range's share of a traced step. A chrome trace of the steps as training takes them is written to ``folder``.
    """
    on_gpu = context.device.type == "cuda"
    context = of_one_length(context)
    trainer = Trainer(replace(context, graphs=False))
    eager, observed = _traced(trainer, steps, context.device, folder / "trace.eager.json")
    if not on_gpu:
        trace = folder / "trace.json"
        (folder / "trace.eager.json").replace(trace)
        parts = _by_range(json.loads(trace.read_text()))
        # Being traced makes a step slower.
        parts = {part: seconds * eager / observed for part, seconds in parts.items()}
        return Profile(_close(parts, eager, steps, "other"), 1e3 * eager / steps, trace)
    parts = _by_launch(json.loads((folder / "trace.eager.json").read_text()))
    replayed, _ = _traced(Trainer(context), steps, context.device, folder / "trace.json")
    busy = _busy(json.loads((folder / "trace.json").read_text()))
    # The kernels are the same; replayed back to back they may run a little faster than launched one by one.
    fit = busy / max(sum(parts.values()), 1e-12)
    return Profile(
        _close({part: fit * seconds for part, seconds in parts.items()}, replayed, steps, "idle"),
        1e3 * replayed / steps,
        folder / "trace.json",
    )


def _traced(trainer: Trainer, steps: int, device: torch.device, path: Path) -> tuple[float, float]:
    """Seconds that ``steps`` steps take unobserved, and seconds of the same steps once more, traced into ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Once before: libraries load their kernels, and graphs are captured.
    _take(trainer, steps)
    _wait(device)
    began = time.perf_counter()
    _take(trainer, steps)
    _wait(device)
    seconds = time.perf_counter() - began
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as trace:
        began = time.perf_counter()
        _take(trainer, steps)
        _wait(device)
        observed = time.perf_counter() - began
    trace.export_chrome_trace(str(path))
    return seconds, observed


def of_one_length(context: RunContext) -> RunContext:
    """The run with every step of the same length, so that two passes over them do the same work."""
    return replace(context, recipe=context.recipe.model_copy(update={"random_length": None}))


def next_step(trainer: Trainer) -> None:
    """Take the next step of a trainer that has begun; after the last of an epoch comes the first."""
    if not trainer.advance():
        trainer.begin()
        trainer.advance()


def _take(trainer: Trainer, steps: int) -> None:
    trainer.begin()
    for _ in range(steps):
        next_step(trainer)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _close(parts: dict[str, float], total: float, steps: int, rest: str) -> list[Share]:
    """Milliseconds a step in the order of :data:`PARTS`, then any others, and the ``rest`` of the step's time."""
    names = [*PARTS, *sorted(parts.keys() - set(PARTS))]
    shares = [Share(name, 1e3 * parts.get(name, 0.0) / steps) for name in names]
    return [*shares, Share(rest, max(0.0, 1e3 * total / steps - sum(s.milliseconds for s in shares)))]


def _ranges(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e.get("cat") == "user_annotation" and e.get("name") in PARTS]


def _by_range(trace: dict[str, Any]) -> dict[str, float]:
    """Seconds in each range of a CPU trace, without the ranges inside it."""
    found: dict[str, float] = {}
    stack: list[tuple[float, str]] = []  # ends and names of the ranges that are open
    for event in sorted(_ranges(trace["traceEvents"]), key=lambda e: (e["ts"], -e["dur"])):
        while stack and stack[-1][0] <= event["ts"]:
            stack.pop()
        if stack:
            found[stack[-1][1]] -= event["dur"] / 1e6
        found[event["name"]] = found.get(event["name"], 0.0) + event["dur"] / 1e6
        stack.append((event["ts"] + event["dur"], event["name"]))
    return found


def _by_launch(trace: dict[str, Any]) -> dict[str, float]:
    """Seconds of GPU work by the range it was launched in: whichever thread launched it, it did so in that time."""
    events = trace["traceEvents"]
    ranges = sorted(_ranges(events), key=lambda e: e["ts"])
    starts = [r["ts"] for r in ranges]
    launched = {e["args"]["correlation"]: e["ts"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver")}
    found: dict[str, float] = {}
    for kernel in _kernels(events):
        at = launched.get(kernel["args"].get("correlation"), kernel["ts"])
        # Ranges begin in order, and the last begun of those still open is the innermost.
        name = "other"
        for index in range(bisect_right(starts, at) - 1, max(-1, bisect_right(starts, at) - 64), -1):
            if at <= ranges[index]["ts"] + ranges[index]["dur"]:
                name = ranges[index]["name"]
                break
        found[name] = found.get(name, 0.0) + kernel["dur"] / 1e6
    return found


def _kernels(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]


def _busy(trace: dict[str, Any]) -> float:
    """Seconds in which the GPU had something to do."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in _kernels(trace["traceEvents"]))
    total, until = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 1e6
