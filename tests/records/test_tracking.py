"""The registry mirrors every run completely, once, in order, and honestly when a run is continued or done again."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from suite.errors import InputError
from suite.records.files import file_lock
from suite.records.payload import cell_digest
from suite.records.reading import spec_key
from suite.records.record import LabelRef
from suite.records.registry import RegistryUnavailable, telling_line
from suite.records.store import Store
from suite.records.tracking import Registry, sync

pytest.importorskip("mlflow")

pytestmark = [
    # MLflow 3.17 maps its tables with a loader option that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    # MLflow's store keeps pooled SQLite connections until the interpreter ends.
    pytest.mark.filterwarnings("ignore:unclosed database in:ResourceWarning"),
]


def entry(store: Any, run_key: str) -> Any:
    return Registry(store)._entries()[run_key]


def history(store: Any, run_key: str, key: str) -> list[tuple[int, float]]:
    registry = Registry(store)
    run_id = registry._entries()[run_key].info.run_id
    return [(m.step, m.value) for m in registry.client.get_metric_history(run_id, key)]


def stored_points(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("select count(*) from metrics").fetchone()[0])
    finally:
        connection.close()


def test_a_finished_run_arrives_whole_and_only_once(make_record, store, registry_file):
    record = make_record(1)
    store.write(record)
    report = sync(store)
    assert (report.created, report.updated, report.failed) == ([record.run_key], [], {})

    run = entry(store, record.run_key)
    assert run.info.run_name == "mos seed 1, lstm on hmm (demo)"
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1767323045000, 1767323105000)
    assert run.data.params == {
        "cell": cell_digest(record.spec),
        "task": "demo",
        "version": "1",
        "protocol": "short",
        "dataset": "hmm",
        "encoder": "lstm",
        "head": "mos",
        "seed": "1",
        "scope": "full",
        "precision": "float32",
        "dataset.name": "hmm",
        "dataset.states": "4",
        "encoder.name": "lstm",
        "encoder.layers": "[8, 8]",
        "head.name": "mos",
        "head.experts": "15",
        "recipe.budget.epochs": "10",
        "recipe.optimizer.name": "sgd",
        "recipe.optimizer.lr": "20.0",
        "recipe.precision.recurrence": "float32",
        "recipe.precision.head": "float32",
        "stages": '[{"name": "train"}]',
    }
    assert run.data.metrics == {
        "curve/valid_ppl": 7.5,
        "curve/seconds": 1.5,
        "train-stage/valid_ppl": 7.5,
        "train-stage/test_ppl": 7.25,
        "train-stage/test_nll": 1.98,
        "valid_ppl": 7.5,
        "test_ppl": 7.25,
        "test_ppl_above_floor": 0.75,
        "best_valid_ppl": 7.5,
        "model/parameters": 1000.0,
        "model/head_parameters": 200.0,
        "data/test_floor_ppl": 6.5,
        "cost/train_seconds": 4.5,
        "cost/total_seconds": 6.0,
        "cost/tokens_per_second": 900.0,
    }
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("suite.")}
    assert len(tags.pop("suite.record_sha256")) == 64
    assert tags == {
        "suite.run_key": record.run_key,
        "suite.status": "finished",
        "suite.scope": "full",
        "suite.task": "demo",
        "suite.commit": "0123abc",
        "suite.dirty": "false",
        "suite.kernel": "chunked",
        "suite.data.train": "ab" * 32,
        "suite.data.test": "cd" * 32,
    }
    shown = {key: value for key, value in run.data.tags.items() if key.startswith(("mlflow.note", "mlflow.source"))}
    assert shown == {
        "mlflow.note.content": "**demo**\n\n"
        "finished: best_valid_ppl 7.5, test_ppl 7.25, test_ppl_above_floor 0.75, valid_ppl 7.5\n\n"
        f"`suite show {record.run_key[:12]}` prints the record; artifact `record.json` is the record.",
        "mlflow.source.name": "suite run demo",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "0123abc",
    }
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, len(given.dataset.digest)) == ("hmm", 36)
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    registry = Registry(store)
    artifact = Path(registry.client.download_artifacts(run.info.run_id, "record.json"))
    assert json.loads(artifact.read_text())["run_key"] == record.run_key
    experiment = registry.client.get_experiment(registry.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.artifact_location == (store.root / "mlartifacts").as_uri()

    before = stored_points(registry_file)
    again = sync(store)
    assert (again.created, again.updated, again.unchanged) == ([], [], [record.run_key])
    assert stored_points(registry_file) == before


def test_a_second_sync_sends_nothing(make_record, store, registry_file, monkeypatch):
    for seed in range(10):
        store.write(make_record(seed))
    sync(store)
    registry = Registry(store)
    for verb in ("create_run", "log_batch", "log_text", "log_inputs", "set_tag", "set_terminated", "update_run"):
        monkeypatch.setattr(registry.client, verb, lambda *_arguments, _verb=verb, **_options: pytest.fail(_verb))
    assert len(registry.sync().unchanged) == 10
    assert registry.sync().unchanged == []  # nothing on disk changed: not even looked up


def test_a_file_that_is_no_record_is_named_and_the_others_arrive(make_record, store, registry_file):
    for seed in range(3):
        store.write(make_record(seed))
    broken = store.paths()[0]
    key = broken.stem[-12:]
    broken.write_text("{")
    report = sync(store)
    assert len(report.created) == 2
    assert report.failed == {
        key: f"{broken}:1:2: not whole JSON (Expecting property name enclosed in double quotes): "
        "the file is truncated or damaged; restore it or remove it"
    }


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_sync_killed_at_any_moment_is_completed_by_the_next(make_record, store, registry_file, monkeypatch, calls):
    record = make_record(1, epochs=5)
    store.write(record)
    monkeypatch.setattr("suite.records.tracking._METRICS_PER_BATCH", 6)
    registry = Registry(store)
    left = iter(range(calls))
    for verb in ("create_run", "log_batch", "log_text", "log_inputs", "set_terminated"):
        real = getattr(registry.client, verb)

        def dying(*arguments: Any, _real: Any = real, **options: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return _real(*arguments, **options)

        monkeypatch.setattr(registry.client, verb, dying)
    with pytest.raises(KeyboardInterrupt):
        registry.sync()
    sync(store)
    assert history(store, record.run_key, "curve/valid_ppl") == [(e, 9.0 - e / 2) for e in range(1, 6)]
    assert history(store, record.run_key, "test_ppl") == [(0, 7.25)]
    assert entry(store, record.run_key).info.status == "FINISHED"
    assert stored_points(registry_file) == 5 * 2 + 13
    assert len(Registry(store)._entries()) == 1


def test_a_run_is_followed_while_it_runs_and_known_as_killed_after(
    make_record, store, registry_file, start_run, add_epoch
):
    record = make_record(1)
    key = record.run_key
    registry = Registry(store)
    with store.lock(key):
        start_run(store, record)
        add_epoch(store, record, 1)
        assert registry.sync().created == [key]
        assert registry.sync().unchanged == [key]
        add_epoch(store, record, 2)
        assert registry.sync().updated == [key]
        run = entry(store, key)
        assert (run.info.status, run.data.tags["suite.status"]) == ("RUNNING", "running")
        assert history(store, key, "curve/valid_ppl") == [(1, 8.5), (2, 8.0)]
        event = list(store.events(key))[1]
        (first, _) = registry.client.get_metric_history(run.info.run_id, "curve/valid_ppl")
        assert first.timestamp == round(event["time"] * 1000)
    assert registry.sync().updated == [key]  # the lock was let go without an end: killed
    run = entry(store, key)
    assert (run.info.status, run.data.tags["suite.status"]) == ("KILLED", "killed")
    assert run.info.end_time == round(list(store.events(key))[-1]["time"] * 1000)
    assert {a.path for a in registry.client.list_artifacts(run.info.run_id)} == {"events.jsonl", "spec.json"}
    assert sync(store).unchanged == [key]


def now_record(make_record: Any, store: Any, **fields: Any) -> Any:
    """A record of the run whose events are in the store, with their times."""
    record = make_record(1, **fields)
    times = [event["time"] for event in store.events(record.run_key)]
    started, ended = (datetime.fromtimestamp(t, UTC).isoformat(timespec="seconds") for t in (times[0], times[-1]))
    origin = record.provenance.model_copy(update={"started": started, "ended": ended})
    return record.model_copy(update={"provenance": origin})


def test_a_resumed_run_continues_its_entry_and_repeats_nothing(make_record, store, registry_file, start_run, add_epoch):
    record = make_record(1, epochs=4)
    key = record.run_key
    with store.lock(key):
        start_run(store, record)
        for number in (1, 2, 3):
            add_epoch(store, record, number)
        sync(store)
        run_id = entry(store, key).info.run_id
    sync(store)
    with store.lock(key):
        start_run(store, record, attempt=2)
        for number in (2, 3, 4):  # killed after epoch 3, whose checkpoint was of epoch 1
            add_epoch(store, record, number, seconds=1.75)
        sync(store)
        run = entry(store, key)
        assert (run.info.run_id, run.info.status, run.data.tags["suite.status"]) == (run_id, "RUNNING", "running")
    store.events(key).append("end", status="finished")
    store.write(now_record(make_record, store, epochs=4))
    assert sync(store).updated == [key]
    run = entry(store, key)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    # Records know whole seconds only; the run must not seem to end before its last event.
    assert run.info.end_time == round(list(store.events(key))[-1]["time"] * 1000)
    assert history(store, key, "curve/valid_ppl") == [(1, 8.5), (2, 8.0), (3, 7.5), (4, 7.0)]
    assert history(store, key, "curve/seconds") == [(1, 1.5), (2, 1.5), (3, 1.5), (4, 1.75)]
    paths = {a.path for a in Registry(store).client.list_artifacts(run_id)}
    assert paths == {"record.json", "events.jsonl", "spec.json"}


def test_an_interrupted_record_that_is_finished_later_keeps_its_entry(make_record, store, registry_file):
    early = make_record(1, status="interrupted", epochs=2)
    store.write(early)
    sync(store)
    run_id = entry(store, early.run_key).info.run_id
    assert entry(store, early.run_key).info.status == "KILLED"
    costs = {"seconds": {"train": 9.0, "total": 12.0}, "tokens_per_second": 900.0}
    finished = make_record(1, epochs=4, costs=costs)
    origin = finished.provenance.model_copy(update={"ended": "2026-01-02T03:06:05+00:00"})
    store.write(finished.model_copy(update={"provenance": origin}))
    assert sync(store).updated == [early.run_key]
    run = entry(store, early.run_key)
    assert (run.info.run_id, run.info.status, run.data.metrics["cost/train_seconds"]) == (run_id, "FINISHED", 9.0)
    assert history(store, early.run_key, "curve/valid_ppl") == [(1, 8.5), (2, 8.0), (3, 7.5), (4, 7.0)]


def test_a_run_done_again_with_another_outcome_never_mixes_with_the_old_one(make_record, store, registry_file):
    record = make_record(1)
    store.write(record)
    sync(store)
    old = entry(store, record.run_key).info.run_id
    store.write(make_record(1, status="diverged", message="the loss is not finite", epochs=1), replace=True)
    sync(store)
    run = entry(store, record.run_key)
    assert (run.info.run_id != old, run.info.status) == (True, "FAILED")
    assert "test_ppl" not in run.data.metrics
    assert run.data.tags["suite.message"] == "the loss is not finite"
    retired = Registry(store).client.get_run(old)
    assert (retired.info.lifecycle_stage, retired.data.tags["suite.superseded"]) == ("deleted", "true")


def test_a_failed_rerun_leaves_the_finished_record_and_its_curve(
    make_record, store, registry_file, start_run, add_epoch
):
    record = make_record(1)
    store.write(record)
    sync(store)
    run_id = entry(store, record.run_key).info.run_id
    start_run(store, record)
    add_epoch(store, record, 1, valid_ppl=700.0)
    store.events(record.run_key).append("end", status="failed")
    sync(store)
    run = entry(store, record.run_key)
    assert (run.info.run_id, run.info.status, run.data.metrics["test_ppl"]) == (run_id, "FINISHED", 7.25)
    assert history(store, record.run_key, "curve/valid_ppl") == [(1, 8.5), (2, 8.0), (3, 7.5)]


def test_new_labels_reach_the_registry(make_record, store, registry_file):
    record = make_record(1)
    store.write(record)
    sync(store)
    store.write(record.model_copy(update={"labels": LabelRef(dataset="hmm", encoder="lstm", head="MoS")}))
    sync(store)
    run = entry(store, record.run_key)
    assert (run.data.params["head"], run.info.run_name) == ("MoS", "MoS seed 1, lstm on hmm (demo)")
    assert len(Registry(store)._entries()) == 1


def test_long_values_and_foreign_characters_are_fitted(make_record, store, registry_file):
    metrics = {"train": {"test": {"ppl(%)": 1.0, "ppl": 1e308}}}
    record = make_record(1, metrics=metrics, message="x" * 9000)
    spec = {**record.spec, "head": {"name": "mos", "note": "y" * 7000, "none": None}}
    record = record.model_copy(update={"spec": spec, "run_key": spec_key(spec)})
    store.write(record)
    assert sync(store).failed == {}
    run = entry(store, record.run_key)
    assert run.data.metrics["train-stage/test_ppl___"] == 1.0
    assert run.data.metrics["test_ppl"] == 1e308
    assert run.data.params["head.note"] == "y" * 6000
    assert "head.none" not in run.data.params
    assert sync(store).unchanged == [record.run_key]


def _open_registry(root: str, barrier: Any, outcomes: Any) -> None:
    warnings.simplefilter("ignore")
    barrier.wait()
    try:
        outcomes.put(Registry(Store(Path(root))).experiment_id)
    except Exception as error:
        outcomes.put(repr(error))


@pytest.mark.timeout(120)
def test_four_processes_may_open_a_registry_that_does_not_exist_yet(store):
    store.root.mkdir()
    (store.root / ".mlflow.db.new").write_text("what a kill in the middle of its making leaves")
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(4), context.Queue()
    arguments = (str(store.root), barrier, outcomes)
    processes = [context.Process(target=_open_registry, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    found = [outcomes.get(timeout=90) for _ in processes]
    for process in processes:
        process.join()
    assert found == ["1"] * 4
    assert not (store.root / ".mlflow.db.new").exists()
    connection = sqlite3.connect(store.root / "mlflow.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_registry_that_cannot_be_used_says_what_to_do(make_record, store, monkeypatch):
    store.write(make_record(1))
    (store.root / "mlflow.db").write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(RegistryUnavailable) as caught:
        sync(store)
    address = f"sqlite:///{store.root / 'mlflow.db'}"
    assert str(caught.value) == (
        f"MLflow at {address} is not available: (sqlite3.DatabaseError) file is not a database; "
        "records are safe; move the file away and run `suite sync` to rebuild it from them"
    )
    with pytest.raises(InputError) as wrong:
        sync(store, "ftp://somewhere")
    assert str(wrong.value) == (
        "MLFLOW_TRACKING_URI is 'ftp://somewhere'; give an http(s) address or a sqlite:/// file"
    )


def test_an_entry_that_a_repeated_request_made_twice_is_kept_once(make_record, store, registry_file):
    record = make_record(1)
    store.write(record)
    sync(store)
    registry = Registry(store)
    whole = registry.run_id(record.run_key)
    twin = registry.client.create_run(registry.experiment_id, tags={"suite.run_key": record.run_key}).info.run_id
    assert sync(store).unchanged == [record.run_key]
    assert registry.run_id(record.run_key) == whole
    assert registry.client.get_run(twin).info.lifecycle_stage == "deleted"


def test_a_locked_database_is_said_to_be_locked() -> None:
    raised = (
        "(raised as a result of Query-invoked autoflush; consider ...)\n(sqlite3.OperationalError) database is locked"
    )
    assert telling_line(RuntimeError(raised)) == "(sqlite3.OperationalError) database is locked"
    assert telling_line(RuntimeError(" \n")) == "RuntimeError"


def test_two_syncs_of_the_same_results_do_not_run_at_once(make_record, store, registry_file):
    with file_lock(store.root / "sync.lock") as held:
        assert held is not None
        with pytest.raises(RegistryUnavailable) as caught:
            sync(store, wait=0.1)
    assert str(caught.value) == "another sync of these results is still at work; try again later"
