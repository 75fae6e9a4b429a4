"""Made-up records that are valid in every respect, their run key included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.records.record import Costs, Environment, LabelRef, Model, Provenance, Record, TaskRef
from suite.spec.recipe import Recipe
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec, Scope

DEVICE = "NVIDIA H200"


def make_record(
    *,
    dataset: str = "ptb",
    encoder: str = "awd-lstm",
    encoder_name: str | None = None,
    head: str = "mos-15",
    seed: int = 1,
    test: float | None = 56.0,
    valid: float | None = 58.0,
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    stages: tuple[str, ...] = ("train",),
    recipe: Mapping[str, Any] | None = None,
    dataset_options: Mapping[str, Any] | None = None,
    task: str = "mos-ptb",
    version: int = 1,
    protocol: str = "nt-asgd",
    scope: Scope = "full",
    status: str = "finished",
    message: str | None = None,
    facts: Mapping[str, float] | None = None,
    curves: list[dict[str, float]] | None = None,
    costs: Mapping[str, Any] | None = None,
    device: str = DEVICE,
    device_kind: str = "cuda",
    parameters: int = 21_500_620,
) -> Record:
    """A record of one run; ``costs`` adds to or replaces the fields of a plausible exclusive GPU run."""
    spec = RunSpec(
        task=task,
        version=version,
        dataset=ComponentSpec(dataset, dataset_options or {}),
        encoder=ComponentSpec(encoder_name or encoder),
        head=ComponentSpec(head),
        recipe=Recipe.model_validate(recipe or {}).resolved(),
        stages=tuple(ComponentSpec(stage) for stage in stages),
        seed=seed,
        scope=scope,
        labels=Labels(dataset, encoder, head),
        protocol=protocol,
    )
    if metrics is None:
        scores = {split: {"ppl": value} for split, value in (("valid", valid), ("test", test)) if value is not None}
        metrics = {stages[0]: scores} if status == "finished" else {}
    took: dict[str, Any] = {
        "seconds": {"setup": 4.0, "train": 1000.0, "evaluate": 20.0, "log": 1.0, "total": 1025.0},
        "seconds_per_epoch": 40.0,
        "epochs_timed": 24,
        "tokens_per_second": 23_000.0,
        "gpu_peak_mib": 9_876.0,
        "gpu_peak_source": "process",
        "allocator_peak_mib": 8_765.0,
        "exclusive": True,
    }
    return Record(
        run_key=spec.run_key,
        status=status,
        scope=scope,
        task=TaskRef(name=task, version=version, title="A made-up task", paper="yang2018", protocol=protocol),
        labels=LabelRef(dataset=dataset, encoder=encoder, head=head),
        seed=seed,
        spec=spec.identity,
        model=Model(parameters=parameters, head_parameters=2_700_000),
        metrics={stage: {split: dict(values) for split, values in splits.items()} for stage, splits in metrics.items()},
        facts=dict(facts or {}),
        curves=curves or [],
        costs=Costs(**{**took, **(costs or {})}),
        environment=Environment(
            device=device,
            device_kind=device_kind,
            python="3.11.7",
            platform="Linux",
            versions={"torch": "2.13.0"},
            cpu_count=16,
            threads=8,
        ),
        provenance=Provenance(
            commit="0" * 40,
            dirty=False,
            command=f"suite run tasks/{task}.yaml",
            suite_version="0.1.0",
            data={"train": "a" * 64},
            started="2026-01-01T00:00:00Z",
            ended="2026-01-01T00:17:05Z",
        ),
        message=message,
    )
