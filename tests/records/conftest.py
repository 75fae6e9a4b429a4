"""Made-up records, event logs and a ready registry file for the tests of the records room."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.records.reading import spec_key
from suite.records.record import Record
from suite.records.store import Store

MakeRecord = Callable[..., Record]


def _make_record(
    seed: int = 1, *, head: str = "mos", status: str = "finished", epochs: int = 3, **changes: Any
) -> Record:
    spec = {
        "task": "demo",
        "version": 1,
        "dataset": {"name": "hmm", "states": 4},
        "encoder": {"name": "lstm", "layers": [8, 8]},
        "head": {"name": head, "experts": 15},
        "recipe": {
            "budget": {"epochs": 10},
            "optimizer": {"name": "sgd", "lr": 20.0},
            "precision": {"recurrence": "float32", "head": "float32"},
        },
        "stages": [{"name": "train"}],
        "seed": seed,
        "scope": "full",
        "plugins": {},
    }
    content = {
        "schema": 1,
        "run_key": spec_key(spec),
        "status": status,
        "scope": "full",
        "task": {"name": "demo", "version": 1, "protocol": "short"},
        "labels": {"dataset": "hmm", "encoder": "lstm", "head": head},
        "seed": seed,
        "spec": spec,
        "model": {"parameters": 1000, "head_parameters": 200, "kernel": "chunked"},
        "metrics": {"train": {"valid": {"ppl": 7.5}, "test": {"ppl": 7.25, "nll": 1.98}}}
        if status == "finished"
        else {},
        "facts": {"test_floor_ppl": 6.5},
        "curves": [
            {"epoch": float(e), "step": 10.0 * e, "valid_ppl": 9.0 - e / 2, "seconds": 1.5}
            for e in range(1, epochs + 1)
        ],
        "costs": {"seconds": {"train": 4.5, "total": 6.0}, "gpu_peak_mib": None, "tokens_per_second": 900.0},
        "provenance": {
            "commit": "0123abc",
            "dirty": False,
            "command": "suite run demo",
            "suite_version": "0.1.0",
            "data": {"train": "ab" * 32, "test": "cd" * 32},
            "started": "2026-01-02T03:04:05+00:00",
            "ended": "2026-01-02T03:05:05+00:00",
        },
        **changes,
    }
    return Record.model_validate(content)


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    """``make_record(seed, head=, status=, epochs=, **fields)``."""
    return _make_record


@pytest.fixture(scope="session")
def start_run() -> Callable[..., None]:
    """``start_run(store, record, attempt=1)``: append a run's first event."""

    def start(store: Store, record: Record, attempt: int = 1) -> None:
        store.events(record.run_key).append(
            "start",
            attempt=attempt,
            run_key=record.run_key,
            spec=record.spec,
            task=record.task.model_dump(),
            labels=record.labels.model_dump(),
            seed=record.seed,
            parameters=1000,
            data=record.provenance.data,
            environment={},
        )

    return start


@pytest.fixture(scope="session")
def add_epoch() -> Callable[..., None]:
    """``add_epoch(store, record, n)``: append the event of epoch ``n``, with the numbers of a made-up record."""

    def epoch(store: Store, record: Record, number: int, **numbers: float) -> None:
        values = {"step": 10 * number, "valid_ppl": 9.0 - number / 2, "seconds": 1.5, **numbers}
        store.events(record.run_key).append("epoch", stage="train", epoch=number, **values)

    return epoch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture(autouse=True)
def _no_outside_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def registry_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite registry: making one takes seconds, copying it none."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own migrations use what SQLAlchemy deprecates
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def registry_file(store: Store, registry_template: Path) -> Path:
    """A ready registry where the store looks for it."""
    store.root.mkdir(parents=True, exist_ok=True)
    path = store.root / "mlflow.db"
    shutil.copy(registry_template, path)
    return path
