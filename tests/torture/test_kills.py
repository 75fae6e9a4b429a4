"""SIGKILL at any moment: the same command goes on, ends with the same numbers, and leaves nothing behind."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nursery import REPORT, RUN, SYNC, Nursery, make_desk, only_record, same, tree
from tallies import TORTURE, Tally, times
from tiny_tasks import outcome

KILLED = -9
Counted = Callable[[str, str], Tally]


def moments(count: int, operations: int, seconds: float, last: int) -> Iterator[dict[str, float]]:
    """``count`` faults: half of them before a file operation, of which the ``last`` come first, half at any time."""
    draw = random.Random(count)
    before = [
        *range(operations, operations - last, -1),
        *draw.sample(range(1, operations - last), operations - last - 1),
    ]
    for place in range(count):
        if place % 2 == 0 and before:
            yield {"kill": before.pop(0)}
        else:
            yield {"seconds": draw.uniform(0.0, seconds)}


def checkpoints(desk: Path) -> list[Path]:
    return list((desk / "results").glob("runs/*/checkpoint*.pt"))


def test_a_run(nursery: Nursery, undisturbed: Path, operations: int, tmp_path: Path, tally: Counted) -> None:
    row = tally(
        "a runner is killed", "SIGKILL before a file operation or at a random time, from the first step to the last"
    )
    for place, moment in enumerate(moments(times(3, 130), operations, 1.0, last=times(1, 24))):
        desk = make_desk(tmp_path / str(place))
        killed = nursery.run(desk, RUN, **moment)
        had_checkpoint = bool(checkpoints(desk))
        resumed = nursery.run(desk, RUN)
        went_on = "resumed (attempt 2)" in resumed.out or "done before" in resumed.out
        row.tried += 1
        row.lost += not (
            killed.status in (KILLED, 0)  # a late moment may find the run ended
            and resumed.status == 0
            and same(desk, undisturbed)
            and (went_on or not had_checkpoint)
        )
        assert row.lost == 0, (moment, killed, resumed, tree(desk) ^ tree(undisturbed))
        shutil.rmtree(desk)


def test_the_instant_between_a_record_and_the_end_of_its_run(
    nursery: Nursery, undisturbed: Path, operations: int, tmp_path: Path
) -> None:
    desk = make_desk(tmp_path)
    # The last operations note the end and remove two checkpoints.
    assert nursery.run(desk, RUN, kill=operations - 1).status == KILLED
    assert only_record(desk).status == "finished"
    assert checkpoints(desk), "the run was not yet closed"
    done = nursery.run(desk, RUN)
    assert "done before" in done.out
    assert same(desk, undisturbed)


def test_a_report(nursery: Nursery, undisturbed: Path, tmp_path: Path, tally: Counted) -> None:
    row = tally("a report is killed", "SIGKILL before a file operation or at a random time while pages are written")
    desk = shutil.copytree(undisturbed, tmp_path / "whole")
    operations = nursery.run(desk, REPORT).operations
    nursery.run(desk, REPORT)
    whole = pages(desk)
    desk = shutil.copytree(undisturbed, tmp_path / "killed")
    for moment in moments(times(1, 30), operations * 3, 0.6, last=1):
        killed = nursery.run(desk, REPORT, **moment)
        again = nursery.run(desk, REPORT)
        row.tried += 1
        row.lost += not (killed.status in (KILLED, 0) and again.status == 0 and pages(desk) == whole)
        assert row.lost == 0, (moment, killed, again)
        for name in whole:
            if not name.startswith(("records", "runs")):
                (desk / "results" / name).unlink()


def pages(desk: Path) -> dict[str, bytes]:
    return {name: (desk / "results" / name).read_bytes() for name in sorted(tree(desk))}


def held(desk: Path) -> dict[str, list[Any]]:
    """What the registry holds, without what differs between two entries of one run: MLflow's ids and times."""
    queries = {
        "runs": "select name, status, lifecycle_stage from runs",
        "metrics": "select key, value, step from metrics",
        "params": "select key, value from params",
        "tags": "select key, value from tags",
        "inputs": "select count(*) from inputs",
    }
    with closing(sqlite3.connect(desk / "results/mlflow.db")) as database:
        return {name: sorted(database.execute(query).fetchall()) for name, query in queries.items()}


@pytest.fixture(scope="module")
def syncing() -> Iterator[Nursery]:
    """Forks that find MLflow imported."""
    pytest.importorskip("mlflow")
    started = Nursery(
        "mlflow", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite"
    )
    yield started
    started.close()


def artifacts(desk: Path) -> list[str]:
    """Names and contents of what was sent with the run."""
    return sorted(
        f"{path.name}: {path.read_text()}" for path in (desk / "results/mlartifacts").rglob("*.*") if path.is_file()
    )


@pytest.mark.skipif(not TORTURE, reason="takes half a minute: make torture")
def test_a_sync(syncing: Nursery, undisturbed: Path, tmp_path: Path, tally: Counted) -> None:
    row = tally("a sync is killed", "SIGKILL at a random time while a run, and the registry itself, are made in SQLite")
    whole = shutil.copytree(undisturbed, tmp_path / "whole")
    assert syncing.run(whole, SYNC).status == 0
    draw = random.Random(3)
    # Times are drawn from what a sync takes here, the making of the registry included.
    for place in range(40):
        desk = shutil.copytree(undisturbed, tmp_path / str(place))
        made = place % 4 > 0
        if made:
            empty_registry(desk, whole)
        killed = syncing.run(desk, SYNC, seconds=draw.uniform(0.0, 0.6 if made else 4.0))
        again = syncing.run(desk, SYNC)
        row.tried += 1
        row.lost += not (
            killed.status in (KILLED, 0)
            and again.status == 0
            and held(desk) == held(whole)
            and artifacts(desk) == artifacts(whole)
        )
        assert row.lost == 0, (killed, again)
        shutil.rmtree(desk)


@pytest.mark.skipif(not TORTURE, reason="every run starts a mirror, which imports MLflow: make torture")
def test_a_run_with_its_mirror(
    nursery: Nursery, syncing: Nursery, undisturbed: Path, tmp_path: Path, tally: Counted
) -> None:
    """The runner dies while its mirror writes to the registry, or its mirror has not begun; what it left goes on."""
    row = tally("a runner is killed beside its mirror", "SIGKILL at a random time of a run that is mirrored as it goes")
    mirrored = [word for word in RUN if word != "--no-mlflow"]
    whole = shutil.copytree(undisturbed, tmp_path / "whole")
    assert syncing.run(whole, SYNC).status == 0
    draw = random.Random(5)
    for place in range(12):
        desk = make_desk(tmp_path / str(place))
        killed = nursery.run(desk, mirrored, seconds=draw.uniform(0.2, 8.0))
        resumed = nursery.run(desk, mirrored)
        delivered = syncing.run(desk, SYNC)
        row.tried += 1
        row.lost += not (
            killed.status in (KILLED, 0)
            and (resumed.status, delivered.status) == (0, 0)
            and outcome(only_record(desk)) == outcome(only_record(undisturbed))
            and told(desk) == told(whole)
        )
        assert row.lost == 0, (killed, resumed, delivered, told(desk))
        shutil.rmtree(desk)


def told(desk: Path) -> tuple[Any, Any]:
    """The registry's runs, and their perplexities, which no attempt changes."""
    found = held(desk)
    return found["runs"], [entry for entry in found["metrics"] if "ppl" in entry[0]]


def empty_registry(desk: Path, whole: Path) -> None:
    """The tables of a registry that knows no run yet."""
    with closing(sqlite3.connect(whole / "results/mlflow.db")) as source:
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(whole / "results/mlflow.db", desk / "results/mlflow.db")
    with closing(sqlite3.connect(desk / "results/mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics", "params", "tags", "input_tags", "inputs", "datasets", "runs"):
            database.execute(f"delete from {table}")
        place = (desk / "results/mlartifacts").as_uri()
        database.execute("update experiments set artifact_location = ? where experiment_id > 0", (place,))
