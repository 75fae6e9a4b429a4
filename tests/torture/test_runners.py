"""Several runners in one folder: every cell is trained once, and a dead runner holds nothing up."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from nursery import SYNC, Nursery, make_desk
from tallies import TORTURE, Tally, times
from tiny_tasks import outcome

from suite.records.record import Record
from suite.records.store import Store

Counted = Callable[[str, str], Tally]
CELLS = ["run", "tiny", "--device", "cpu", "--threads", "1", "--no-mlflow", "--checkpoint-seconds", "0.05"]


def trained(desk: Path) -> Counter[str]:
    """How often each cell was begun from the beginning."""
    store = Store(desk / "results")
    starts = [(r.run_key, event) for r in store.load() for event in store.events(r.run_key)]
    return Counter(key for key, event in starts if event["type"] == "start" and event["attempt"] == 1)


def outcomes(desk: Path) -> list[tuple[str, object]]:
    return [(record.run_key, outcome(record)) for record in Store(desk / "results").load()]


def test_two_runners_of_one_task(nursery: Nursery, tmp_path: Path, tally: Counted) -> None:
    row = tally("two or three runners of the same task", "started at once; every other time one of them is killed")
    alone = make_desk(tmp_path / "alone")
    assert nursery.run(alone, CELLS).status == 0
    draw = random.Random(5)
    for place in range(times(1, 30)):
        desk = make_desk(tmp_path / str(place))
        fault = {} if place % 2 else {"seconds": draw.uniform(0.1, 1.5)}
        runners = nursery.run_at_once([([CELLS], fault), *[([CELLS], {})] * draw.choice((1, 2))], desk)
        rest = nursery.run(desk, CELLS)
        row.tried += 1
        row.lost += not (
            all(runner.status == 0 for runner in runners[1:])
            and rest.status == 0
            and outcomes(desk) == outcomes(alone)
            # Killed before its first checkpoint, a cell is begun again.
            and sum(trained(desk).values()) <= 4 + (runners[0].status != 0)
        )
        assert row.lost == 0, (runners, rest, trained(desk))


def test_a_cell_that_another_process_finished_before_its_lock_is_not_trained_again(
    nursery: Nursery, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    from suite.cli import main

    desk = make_desk(tmp_path / "desk")
    monkeypatch.chdir(desk)
    looked = Store.get

    def late(store: Store, run_key: str) -> Record | None:
        """The other process ends its run between our look and our lock."""
        found = looked(store, run_key)
        if not store.root.exists():
            shutil.copytree(undisturbed / "results", store.root)
        return found

    monkeypatch.setattr(Store, "get", late)
    assert main(["run", "tiny", "--only", "head=softmax", "--seed", "1", "--device", "cpu", "--no-mlflow"]) == 0
    assert set(trained(desk).values()) == {1}
    assert outcomes(desk) == outcomes(undisturbed)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not TORTURE, reason="starts eight mirrors, each of which imports MLflow: make torture")
def test_eight_runners_start_on_a_registry_that_is_not_there(nursery: Nursery, tmp_path: Path, tally: Counted) -> None:
    pytest.importorskip("mlflow")
    row = tally("eight runners start at once", "on a SQLite registry that does not exist yet")
    desk = make_desk(tmp_path)
    text = (desk / "tasks/tiny.yaml").read_text()
    (desk / "tasks/tiny.yaml").write_text(text.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4]"))
    cells = [
        [word for word in CELLS if word != "--no-mlflow"] + ["--only", f"head={head}", "--seed", str(seed)]
        for head in ("softmax", "mos-2")
        for seed in (1, 2, 3, 4)
    ]
    runners = nursery.run_at_once([([cell], {}) for cell in cells], desk)
    sync = nursery.run(desk, SYNC)
    with closing(sqlite3.connect(desk / "results/mlflow.db")) as database:
        held = database.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
    row.tried += 8
    row.lost += sum(runner.status != 0 for runner in runners) + (8 - len({name for name, _ in held}))
    assert row.lost == 0, (runners, held)
    assert sync.status == 0
    assert len(held) == 8
    assert {status for _, status in held} == {"FINISHED"}
