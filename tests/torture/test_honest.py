"""Numbers under load: a wall clock that jumps gives no wrong one, and a GPU that is full stops no other cell."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tallies import Tally, times
from tiny_tasks import ONE, TINY, Desk, one_record, outcome

from suite.records.store import Store

Counted = Callable[[str, str], Tally]

FULL = '''\
import torch
from suite import register
from suite.models.heads.pointwise import Pointwise


@register("pointwise", "full")
class Full(Pointwise):
    """Asks for more memory than there is."""

    def forward(self, z):
        """Elementwise."""
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has a total capacity of 8 GiB. See the documentation."
        )
'''


def test_a_wall_clock_that_jumps(desk: Desk, monkeypatch: pytest.MonkeyPatch, tally: Counted) -> None:
    row = tally("the wall clock jumps", "back or forth by up to a day at every reading, as after a suspension")
    assert desk.run(*ONE)[0] == 0
    steady = one_record(desk.results)
    real = time.time
    for _ in range(times(1, 20)):
        jumps = iter(range(10**6))
        monkeypatch.setattr(time, "time", lambda jumps=jumps: real() + 86400 * (-1) ** next(jumps))
        began = time.monotonic()
        code, _, err = desk.run(*ONE, "--rerun")
        passed = time.monotonic() - began
        monkeypatch.undo()
        monkeypatch.chdir(desk.root)
        record = one_record(desk.results)
        assert record.costs is not None
        row.tried += 1
        row.lost += not (
            (code, err) == (0, "")
            and outcome(record) == outcome(steady)
            and all(0 <= seconds <= passed for seconds in record.costs.seconds.values())
            and all(0 <= point["seconds"] <= passed for point in record.curves)
        )
        assert row.lost == 0, (record.costs, passed)


def test_a_gpu_without_memory(desk: Desk, tally: Counted) -> None:
    row = tally("the GPU runs out of memory", "one cell of three asks for more than there is")
    desk.write("full.py", FULL)
    head = "heads:\n  - {name: softmax, dimension: 3, pointwise: full}\n"
    desk.write("tasks/tiny.yaml", "plugins: [../full.py]\n" + TINY.replace("heads:\n", head))
    for _ in range(times(1, 20)):
        code, out, err = desk.run("tiny", "--seed", "1", "--rerun")
        asked = "CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has a total capacity of 8 GiB"
        said = f"out of GPU memory: lower batch_size or micro_batch ({asked})"
        found = {record.labels.head: (record.status, record.message) for record in Store(desk.results).load()}
        row.tried += 1
        row.lost += not (
            (code, err) == (1, "")
            and f"  failed: {said}\n" in out
            and found == {"full": ("failed", said), "softmax": ("finished", None), "mos-2": ("finished", None)}
        )
        assert row.lost == 0, (found, out, err)
