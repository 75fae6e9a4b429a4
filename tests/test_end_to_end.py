"""The whole road: a task file in, a leaderboard and a registry out."""

from __future__ import annotations

import math
import warnings

import pytest
from tiny_tasks import Desk

from suite.records.store import Store


def test_a_task_file_in_a_leaderboard_and_a_registry_out(desk: Desk) -> None:
    mlflow = pytest.importorskip("mlflow")
    code, out, err = desk.suite("run", "tiny", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "MLflow: every run is in the registry\n4 finished\n" in out

    # Records: complete, and no model of this size can know more than the source.
    store = Store(desk.results)
    records = store.load()
    assert [(r.labels.head, r.seed, r.status) for r in records] == [
        ("mos-2", 1, "finished"),
        ("mos-2", 2, "finished"),
        ("softmax", 1, "finished"),
        ("softmax", 2, "finished"),
    ]
    for record in records:
        test = record.metrics["train"]["test"]
        assert math.exp(test["nll"]) == pytest.approx(test["ppl"])
        assert test["tokens"] == 199
        assert record.facts["test_floor_ppl"] < test["ppl"] < 20, "better than a guess among 20 symbols"
        assert [point["epoch"] for point in record.curves] == [1, 2]
    assert len({record.metrics["train"]["test"]["ppl"] for record in records}) == 4

    # Leaderboard: the floor first, then each head as the mean of its seeds.
    board = out[out.index("method ") :].splitlines()
    assert board[2].startswith("true floor (the source itself)")
    rows = {line.split()[0]: line for line in board[3:5]}
    for head in ("softmax", "mos-2"):
        mean = sum(r.metrics["train"]["test"]["ppl"] for r in records if r.labels.head == head) / 2
        assert f" {mean:.2f} ± " in rows[f"lstm/{head}"]

    # Registry: the same numbers, curves included.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own use of what its dependencies deprecate
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store.root / 'mlflow.db'}")
        (experiment,) = [e for e in client.search_experiments() if e.name == "softmax-bottleneck"]
        runs = {run.data.tags["suite.run_key"]: run for run in client.search_runs([experiment.experiment_id])}
        assert runs.keys() == {record.run_key for record in records}
        for record in records:
            run = runs[record.run_key]
            assert run.info.status == "FINISHED"
            assert run.data.metrics["test_ppl"] == record.metrics["train"]["test"]["ppl"]
            curve = client.get_metric_history(run.info.run_id, "curve/valid_ppl")
            assert [point.value for point in curve] == [point["valid_ppl"] for point in record.curves]

    # Again: nothing is left to do, and nothing changes.
    before = {path: path.stat().st_mtime_ns for path in store.paths()}
    code, out, err = desk.suite("run", "tiny", "--device", "cpu", "--no-mlflow")
    assert (code, err) == (0, "")
    assert out.count(": done before (record ") == 4
    assert "\n4 done before\n" in out
    assert {path: path.stat().st_mtime_ns for path in store.paths()} == before
