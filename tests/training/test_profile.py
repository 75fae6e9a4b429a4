"""Where a step's time goes: the sums over made traces, and the verb."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_tasks import ONE, Desk

from suite.training.profiling import _busy, _by_launch, _by_range


def marked(name: str, start: float, length: float, **more: Any) -> dict[str, Any]:
    return {"cat": "user_annotation", "name": name, "ts": start, "dur": length, "tid": 1, **more}


def launch(correlation: int, at: float, tid: int = 1) -> dict[str, Any]:
    return {"cat": "cuda_runtime", "name": "launch", "ts": at, "tid": tid, "args": {"correlation": correlation}}


def kernel(correlation: int | None, start: float, length: float) -> dict[str, Any]:
    args = {} if correlation is None else {"correlation": correlation}
    return {"cat": "kernel", "name": "k", "ts": start, "dur": length, "args": args}


def test_a_range_does_not_count_the_ranges_inside_it() -> None:
    events = [
        marked("head", 100, 40),
        marked("masks", 10, 20),
        marked("recurrence", 0, 100),
        marked("masks", 30, 5),  # begins where the other ends
        marked("masks", 110, 10),
        marked("ProfilerStep", 0, 1000),
        {"cat": "cpu_op", "name": "head", "ts": 0, "dur": 500},
        {"ph": "M", "name": "process_name"},
    ]
    found = _by_range({"traceEvents": events})
    assert found == pytest.approx({"recurrence": 75e-6, "masks": 35e-6, "head": 30e-6})


def test_ranges_three_deep_count_once_each() -> None:
    events = [marked("backward", 0, 100), marked("head", 20, 50), marked("masks", 30, 10)]
    assert _by_range({"traceEvents": events}) == pytest.approx({"backward": 50e-6, "head": 40e-6, "masks": 10e-6})


def test_a_kernel_counts_for_the_range_it_was_launched_in_whenever_it_ran() -> None:
    events = [
        marked("recurrence", 0, 100),
        marked("masks", 10, 20),
        marked("backward", 200, 100),
        launch(1, 15),  # in the inner range
        launch(2, 40),  # in the outer range, after the inner one
        launch(3, 250, tid=2),  # by the thread that runs the backward pass
        launch(4, 150),  # in no range
        kernel(1, 500, 7),
        kernel(2, 210, 11),
        {**kernel(3, 600, 13), "cat": "gpu_memset"},
        kernel(4, 20, 17),
        kernel(99, 220, 19),  # its launch is not in the trace: where it ran
        kernel(None, 900, 23),
        {"cat": "gpu_user_annotation", "name": "head", "ts": 0, "dur": 1000},
    ]
    found = _by_launch({"traceEvents": events})
    expected = {"masks": 7e-6, "recurrence": 11e-6, "backward": 32e-6, "other": 40e-6}
    assert found == pytest.approx(expected)


def test_kernels_that_overlap_keep_the_gpu_busy_once() -> None:
    events = [kernel(1, 0, 10), kernel(2, 5, 10), kernel(3, 6, 2), kernel(4, 30, 5), launch(5, 100)]
    assert _busy({"traceEvents": events}) == pytest.approx(20e-6)
    assert _busy({"traceEvents": []}) == 0.0


def test_the_verb_prints_parts_that_add_up_to_the_step(desk: Desk) -> None:
    code, out, err = desk.suite("profile", "tiny", "--only", "head=mos-2", "--seed", "1", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tiny hidden-markov lstm/mos-2 seed 1: a training step on cpu, mean of 20"
    assert lines[2].split("  ")[0] == "part"
    rows = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in lines[4:11]}
    assert list(rows) == ["masks", "recurrence", "head", "backward", "update", "other", "step"]
    *parts, whole = rows.values()
    assert sum(ms for ms, _ in parts) == pytest.approx(whole[0], abs=0.004)
    assert sum(share for _, share in parts) == pytest.approx(100.0, abs=0.4)
    assert whole[1] == 100.0
    assert all(rows[part][0] > 0 for part in ("recurrence", "head", "backward", "update"))
    where = lines[-1].removeprefix("Trace, for chrome://tracing or ui.perfetto.dev: ")
    names = {event.get("name") for event in json.loads((desk.root / where).read_text())["traceEvents"]}
    assert {"recurrence", "head", "masks", "backward", "update"} <= names
    assert not desk.results.exists(), "looking is not running"


def test_the_verb_looks_at_one_cell(desk: Desk) -> None:
    code, out, err = desk.suite("profile", ONE[0], "--only", "head=softmax", "--device", "cpu")
    assert (code, out) == (2, "")
    assert err == (
        "error: profile looks at one cell, and these are 2: lstm/softmax seed 1, lstm/softmax seed 2. "
        "Use --only and --seed.\n"
    )
