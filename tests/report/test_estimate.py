"""How long a run may take: by its own kind first, by its likes otherwise; beside what the committed runs took."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from records_factory import make_record

from suite.errors import InputError
from suite.records.record import LabelRef, Record
from suite.records.store import Store
from suite.report.estimate import Estimate, Estimator, benchmark_figures
from suite.spec.plan import expand, load_tasks

ROOT = Path(__file__).resolve().parents[2]
TF32 = {"recurrence": "tf32", "head": "tf32"}
FLOAT16 = {"recurrence": "float16", "head": "float16", "evaluation": "tf32"}
PACKED = {"packed": True, "exclusive": None, "seconds_per_epoch": None, "epochs_timed": 0}


def identity(
    *,
    head: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    stages: tuple[dict[str, Any], ...] = ({"name": "train"},),
    seed: int = 1,
    task: str = "new",
    **recipe: Any,
) -> dict[str, Any]:
    """Ten epochs of a mixture of ten, what is not given apart."""
    return {
        "task": task,
        "dataset": {"name": "ptb"},
        "encoder": {"name": "awd-lstm", "embedding": 280, "hidden": [960, 620], "weight_drop": 0.5, **(encoder or {})},
        "head": {"name": "mos", "experts": 10, "dimension": None, "pointwise": {"name": "identity"}, **(head or {})},
        "recipe": {
            "batch_size": 12,
            "micro_batch": None,
            "bptt": 70,
            "precision": TF32,
            "budget": {"epochs": 10, "steps": None},
            "evaluation": {"every_epochs": 1},
            **recipe,
        },
        "stages": list(stages),
        "seed": seed,
    }


def record(
    epoch: float,
    *,
    task: str = "other",
    total: float = 100.0,
    status: str = "finished",
    costs: dict[str, Any] | None = None,
    day: int = 1,
    epochs: int = 20,
    **of: Any,
) -> Record:
    """A run that took ``epoch`` seconds for each of 20 epochs, set up for 4 and evaluated for 20."""
    seconds = {"setup": 4.0, "train": epochs * epoch, "evaluate": 20.0, "total": total}
    measured = {"seconds": seconds, "seconds_per_epoch": epoch, "epochs_timed": 19, **(costs or {})}
    curves = [{"epoch": float(n), "valid_nll": 4.0} for n in range(1, epochs + 1)]
    made = make_record(task=task, status=status, costs=measured, curves=curves, seed=2)
    started = made.provenance.model_copy(update={"started": f"2026-01-{day:02d}", "commit": f"{day:040x}"})
    return made.model_copy(
        update={"spec": identity(task=task, seed=2, **of), "provenance": started, "run_key": f"{day:064x}"}
    )


def told(records: list[Record], done: Record | None = None, **of: Any) -> tuple[float, str] | None:
    found = Estimator(records).estimate(identity(**of), done)
    return None if found is None else (round(found.seconds, 9), found.marks)


def test_a_run_of_another_seed_tells_the_total_that_of_the_newest_step() -> None:
    old, new = record(9.0, task="new", total=500.0, day=1), record(1.0, task="new", total=70.0, day=2)
    assert told([record(50.0, day=3), new, old]) == (70.0, "")
    newest = new.model_copy(update={"run_key": "f" * 64, "costs": record(1.0, total=90.0).costs})
    assert told([newest, new, old]) == (80.0, "")
    step = {"step_code": "5" * 64}
    alike = [one.model_copy(update={"provenance": one.provenance.model_copy(update=step)}) for one in (new, old)]
    assert told(alike) == (285.0, ""), "another commit of the same training step"
    packed = record(1.0, task="new", total=300.0, day=4, costs=PACKED)
    assert told([packed, new]) == (70.0, "")
    assert told([packed]) == (300.0, "~≤")
    assert told([record(1.0, task="new", status="interrupted")]) == (4 + 10 * (1 + 1), "")


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({}, (4 + 10 * (3 + 1), "")),
        ({"encoder": {"weight_drop": 0.2}}, (4 + 10 * (3 + 1), "")),
        ({"precision": {**TF32, "evaluation": "tf32"}}, (4 + 10 * (3 + 1), "")),
        ({"budget": {"epochs": 30, "steps": None}, "evaluation": {"every_epochs": 5}}, (4 + 30 * 3 + 6 * 1, "")),
        ({"precision": FLOAT16}, (4 + 10 * (3 + 1), "~")),
        ({"precision": {"recurrence": "float32", "head": "float32"}}, None),
        ({"head": {"pointwise": {"name": "plif"}}}, (4 + 10 * (3 + 1), "~")),
        ({"head": {"pointwise": {"name": "monotonic-network"}}}, None),
        ({"head": {"name": "softmax", "experts": None}}, (4 + 10 * (3 + 1), "≤")),
        ({"head": {"name": "moc"}}, (4 + 10 * (3 + 1), "≤")),
        ({"head": {"experts": 5}}, (4 + 10 * (3 + 1), "≤")),
        ({"head": {"experts": 15}}, (4 + 10 * (4.5 + 1.5), "≤")),
        ({"head": {"experts": 21}}, None),
        ({"head": {"name": "a-users-own"}}, None),
        ({"head": {"dimension": 280}}, None),
        ({"encoder": {"hidden": [960, 280]}}, (4 + 10 * (3 + 1), "≤")),
        ({"encoder": {"hidden": [960, 640]}}, None),
        ({"micro_batch": 5}, (4 + 10 * (9 + 3), "≤")),
        ({"batch_size": 20}, None),
        ({"budget": {"epochs": 10, "steps": 300}}, None),
        (
            {"stages": ({"name": "train"}, {"name": "finetune", "epochs": 40}, {"name": "cache"})},
            (4 + 50 * (3 + 1), "≤"),
        ),
    ],
)
def test_what_another_task_tells_of_a_run(of: dict[str, Any], said: tuple[float, str] | None) -> None:
    assert told([record(3.0)], **of) == said


def test_a_cheaper_head_bounds_no_dearer_one() -> None:
    contexts = record(3.0, head={"name": "moc"})
    assert told([contexts]) is None
    assert told([contexts], head={"name": "moc"}) == (44.0, "")
    assert told([record(3.0, head={"name": "softmax", "experts": None})], head={"experts": 2}) == (4 + 2 * 40, "≤")


def test_the_likest_run_is_asked() -> None:
    ranking = [
        record(1.0, day=3),
        record(2.0, day=2),
        record(3.0, day=8, costs=PACKED),
        record(4.0, day=9, head={"pointwise": {"name": "plif"}}),
        record(5.0, day=9, precision=FLOAT16),
        record(6.0, day=1, head={"experts": 11}),
        record(7.0, day=9, head={"experts": 12}),
        record(8.0, day=9, costs={"epochs_timed": 1}),
    ]
    marks = ["", "", "~≤", "~", "~", "≤", "≤", "~"]
    for place, mark in enumerate(marks):
        # Newest first, an exact likeness before a rough one, that before a bound; one epoch last.
        assert told(ranking[: place - 1 : -1] if place else ranking[::-1]) == (4 + 10 * (place + 1 + 1), mark)


def test_a_run_that_goes_on_takes_the_rest() -> None:
    stopped = record(3.0, status="interrupted", epochs=4)
    assert told([record(3.0)], stopped) == (44 * 0.6, "")
    tuned = ({"name": "train"}, {"name": "finetune", "epochs": 10})
    assert told([record(3.0)], record(3.0, status="interrupted", epochs=15), stages=tuned) == (84 * 0.25, "≤")


def test_a_benchmark_of_the_step_stands_beside_records(tmp_path: Path) -> None:
    def cell(task: str, head: str) -> dict[str, Any] | None:
        return identity(micro_batch=5) if (task, head) == ("known", "mos-10") else None

    row = {"task": "known", "head": "mos-10", "precision": "float16", "packed": 1, "recorded": "2026-01-03"}
    row |= {"seconds_per_epoch": 2.0, "validation_seconds": 0.5}
    rows = [row, {**row, "packed": 4}, {**row, "head": "plif"}, {"failed": "out of memory"}]
    path = tmp_path / "benchmarks" / "training.json"
    assert benchmark_figures(tmp_path, cell) == []
    path.parent.mkdir()
    path.write_text(json.dumps({"device": "H200", "torch": "2", "rows": rows}))
    (figure,) = benchmark_figures(tmp_path, cell)
    assert Estimator([], [figure]).estimate(identity(precision=FLOAT16)) == Estimate(25.0)
    older, newer = record(3.0, day=2, precision=FLOAT16), record(4.0, day=4, precision=FLOAT16)
    assert Estimator([older], [figure]).estimate(identity(precision=FLOAT16)) == Estimate(29.0)
    assert Estimator([newer], [figure]).estimate(identity(precision=FLOAT16)) == Estimate(54.0)
    path.write_text(json.dumps({"device": "H200", "torch": "2", "rows": [{"case": "odd"}]}))
    with pytest.raises(InputError, match="cannot be read as a benchmark of training"):
        benchmark_figures(tmp_path, cell)


def test_estimates_beside_what_the_committed_runs_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finished run told by the others, then by those of other cells alone."""
    monkeypatch.chdir(ROOT)
    specs = [spec for task in load_tasks(["yang2018-ptb", "parthiban2021-ptb"]) for spec in expand(task)]

    def cell(task: str, head: str) -> dict[str, Any] | None:
        return next((spec.identity for spec in specs if (spec.task, spec.labels.head) == (task, head)), None)

    records = Store(Path("results")).scan().records
    figures = benchmark_figures(Path("results"), cell)
    assert figures
    estimator = Estimator(records, figures)
    finished = [record for record in records if record.status == "finished" and record.scope == "full"]
    cells: dict[tuple[str, LabelRef], set[str]] = defaultdict(set)
    for run in finished:
        cells[run.task.name, run.labels].add(run.run_key)
    for alone, low, high in ((True, 0.95, 1.05), (False, 0.8, 1.25)):
        told = {
            run.run_key: estimator.estimate(
                run.spec, without={run.run_key} if alone else cells[run.task.name, run.labels]
            )
            for run in finished
        }
        ratios = [
            found.seconds / run.costs.seconds["total"] for run in finished if run.costs and (found := told[run.run_key])
        ]
        assert len(ratios) > 0.9 * len(finished)
        assert low < statistics.median(ratios) < high
        middle = statistics.quantiles(ratios, n=4)
        assert middle[2] / middle[0] < 4
